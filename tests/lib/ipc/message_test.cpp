// Messages: what is said of tensors arrives, and nothing that a message says is believed.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <system_error>
#include <thread>

#include "dlbridge/error.hpp"
#include "lib/ipc/shared_fixture.hpp"

namespace dlbridge {
namespace {

using namespace doubles;  // NOLINT(google-build-using-namespace)
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::size_t kHead = 32;  // bytes, and behind them a line for each block

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

std::vector<OwnedDescriptor> copies_of(const std::vector<OwnedDescriptor>& descriptors) {
  std::vector<OwnedDescriptor> copies;
  for (const OwnedDescriptor& each : descriptors) {
    copies.emplace_back(dup(each.get()));
  }
  return copies;
}

std::string refusal_of(const std::vector<std::byte>& bytes,
                       std::vector<OwnedDescriptor> descriptors) {
  try {
    (void)unpack(bytes, std::move(descriptors));
  } catch (const ConversionRefused& refused) {
    return std::string(refused.what()) + ": " + refused.reasons.at(0);
  }
  return "taken";
}

TEST_F(SharedMemory, message_of_a_tree_has_a_note_and_one_descriptor_for_a_block) {
  const std::int64_t shape[] = {2};
  SharedArena arena(SharedMode::kRead, 256);
  std::vector<ManagedTensor> tensors;
  for (float i = 0; i < 3; ++i) {
    tensors.push_back(arena.allocate(kFloat32, shape));
    static_cast<float*>(tensors.back().data())[1] = i;
  }
  const std::vector<std::byte> note = bytes_of("three");
  Message message = pack(tensors, SharedMode::kRead, note);
  EXPECT_EQ(message.descriptors.size(), 1U);
  const Received received = unpack(message.bytes, std::move(message.descriptors));
  EXPECT_EQ(received.note, note);
  ASSERT_EQ(received.tensors.size(), 3U);
  EXPECT_EQ(at(received.tensors[2], 1), 2);
}

TEST_F(SharedMemory, message_that_was_cut_anywhere_is_refused) {
  const Message message = packed(floats_in_block(4));
  for (std::size_t size = 0; size < message.bytes.size(); ++size) {
    const std::vector<std::byte> cut(message.bytes.begin(),
                                     message.bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THAT(refusal_of(cut, copies_of(message.descriptors)),
                HasSubstr("cannot take a message in"));
  }
}

// A tensor is taken only if it lies in its block, whatever the byte was that changed.
TEST_F(SharedMemory, message_that_was_damaged_anywhere_is_refused_or_sound) {
  const Message message = packed(floats_in_block(4));
  int refused = 0;
  for (std::size_t i = 0; i < message.bytes.size(); ++i) {
    for (const int change : {0x01, 0x80, 0xff}) {
      std::vector<std::byte> damaged = message.bytes;
      damaged[i] ^= static_cast<std::byte>(change);
      try {
        const Received received = unpack(damaged, copies_of(message.descriptors));
        for (const ManagedTensor& tensor : received.tensors) {
          if (element_count(tensor.tensor()) != 0) {
            EXPECT_TRUE(can_share(tensor.tensor(), SharedMode::kRead)) << i;
          }
        }
      } catch (const ConversionRefused&) {
        ++refused;
      } catch (const std::system_error&) {
        ++refused;  // a block for reading that is to be mapped to write
      }
    }
  }
  EXPECT_GT(refused, 100);
}

// As packed elements they would fit.
TEST_F(SharedMemory, message_of_padded_elements_beyond_their_block_is_refused) {
  const ManagedTensor floats = floats_in_block(4);
  const std::int64_t size = 8 * 4096 * 16;  // more than the block's, of which its half is no more
  for (std::int64_t count = 32; count < size; count *= 2) {
    Message message;
    try {
      message = packed(as_int4(floats, count, 0));
    } catch (const ConversionRefused&) {  // now it does not fit either
      EXPECT_GT(count, 4096);
      return;
    }
    constexpr std::size_t kFlags = kHead + 24 + 8;  // behind the line of the block
    message.bytes.at(kFlags) |= std::byte{DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED};
    const std::string answer = refusal_of(message.bytes, std::move(message.descriptors));
    const bool fits = can_share(as_int4(floats, 2 * count, 0).tensor(), SharedMode::kRead);
    EXPECT_THAT(answer, HasSubstr(fits ? "taken" : "beyond its block")) << count;
    if (!fits) {
      EXPECT_THROW((void)packed(as_int4(floats, count)), ConversionRefused);
    }
  }
  FAIL() << "no count was too large";
}

TEST_F(SharedMemory, message_with_another_file_is_refused) {
  const Message message = packed(floats_in_block(4));
  const Message other = packed(floats_in_block(8));
  EXPECT_THAT(refusal_of(message.bytes, copies_of(other.descriptors)), HasSubstr("another file"));
  EXPECT_THAT(refusal_of(message.bytes, {}), HasSubstr("descriptors"));
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  std::vector<OwnedDescriptor> pipe_end;
  pipe_end.emplace_back(ends[0]);
  EXPECT_THAT(refusal_of(message.bytes, std::move(pipe_end)), HasSubstr("another kind"));
  (void)close(ends[1]);
}

TEST_F(SharedMemory, message_with_a_file_that_can_be_shrunk_is_refused) {
  const Message message = packed(floats_in_block(4));
  OwnedDescriptor loose(memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(loose.get(), 4096), 0);
  struct stat status {};
  ASSERT_EQ(fstat(loose.get(), &status), 0);
  const std::uint64_t file[] = {status.st_dev, status.st_ino, 4096};
  std::vector<std::byte> bytes = message.bytes;
  std::memcpy(bytes.data() + kHead, file, sizeof file);
  std::vector<OwnedDescriptor> descriptors;
  descriptors.push_back(std::move(loose));
  EXPECT_THAT(refusal_of(bytes, std::move(descriptors)), HasSubstr("not sealed"));
}

TEST_F(SharedMemory, messages_arrive_in_order_and_the_end_is_told) {
  Sockets sockets;
  for (float i = 0; i < 5; ++i) {
    send(sockets.here.get(), packed(floats_in_block(4, i)));
  }
  sockets.here = OwnedDescriptor();
  for (float i = 0; i < 5; ++i) {
    const auto received = receive(sockets.there.get());
    ASSERT_TRUE(received);
    EXPECT_EQ(at(received->tensors.at(0), 0), i);
  }
  EXPECT_FALSE(receive(sockets.there.get()));
}

TEST_F(SharedMemory, message_of_megabytes_arrives_whole) {
  const Sockets sockets;
  std::vector<ManagedTensor> tensors;
  tensors.push_back(floats_in_block(4, 3));
  const std::vector<std::byte> note(std::size_t{5} << 20, std::byte{7});
  std::thread sender([&] { send(sockets.here.get(), pack(tensors, SharedMode::kRead, note)); });
  const auto received = receive(sockets.there.get());
  sender.join();
  ASSERT_TRUE(received);
  EXPECT_EQ(received->note, note);
  EXPECT_EQ(at(received->tensors.at(0), 0), 3);
}

TEST_F(SharedMemory, message_that_ends_in_the_middle_is_an_error) {
  Sockets sockets;
  const Message message = packed(floats_in_block(4));
  ASSERT_EQ(write(sockets.here.get(), message.bytes.data(), message.bytes.size() - 1),
            static_cast<ssize_t>(message.bytes.size() - 1));
  sockets.here = OwnedDescriptor();
  EXPECT_THROW((void)receive(sockets.there.get()), std::system_error);
}

template <typename Action>
int error_of(Action&& action) {
  try {
    action();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

// Whether the socket itself blocks or not.
TEST_F(SharedMemory, socket_that_is_silent_is_left_after_the_timeout) {
  using std::chrono::milliseconds;
  for (const int kind : {0, int{SOCK_NONBLOCK}}) {
    const Sockets sockets(SOCK_STREAM | kind);
    const auto received_in = [&](milliseconds timeout) {
      return error_of([&] { (void)receive(sockets.there.get(), {.timeout = timeout}); });
    };
    EXPECT_EQ(received_in(milliseconds(20)), ETIMEDOUT);
    EXPECT_EQ(received_in(milliseconds(0)), EAGAIN);
    EXPECT_EQ(received_in(milliseconds::min()), ETIMEDOUT);
    const Message message = pack({}, SharedMode::kRead);
    const auto send_until_full = [&] {
      for (;;) {
        send(sockets.here.get(), message, {.timeout = milliseconds(20)});
      }
    };
    EXPECT_EQ(error_of(send_until_full), ETIMEDOUT);
  }
}

TEST_F(SharedMemory, socket_may_be_waited_for_as_long_as_a_timeout_can_say) {
  const Sockets sockets;
  const Waiting forever{.timeout = std::chrono::milliseconds::max()};
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    send(sockets.here.get(), packed(floats_in_block(4)), forever);
  });
  EXPECT_EQ(receive(sockets.there.get(), forever)->tensors.size(), 1U);
  late.join();
}

TEST_F(SharedMemory, socket_of_another_kind_is_refused) {
  const Sockets datagrams(SOCK_DGRAM);
  EXPECT_THROW(send(datagrams.here.get(), packed(floats_in_block(4))), std::system_error);
  EXPECT_THROW((void)receive(datagrams.there.get()), std::system_error);
  EXPECT_THROW((void)receive(-1), std::system_error);
}

TEST_F(SharedMemory, socket_whose_reader_has_gone_is_an_error_and_no_signal) {
  Sockets sockets;
  sockets.there = OwnedDescriptor();
  try {
    send(sockets.here.get(), packed(floats_in_block(4)));
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EPIPE);
  }
}

TEST_F(SharedMemory, message_for_which_there_are_no_descriptors_is_refused_with_advice) {
  const Sockets sockets;
  std::vector<ManagedTensor> tensors;
  for (int i = 0; i < 40; ++i) {
    tensors.push_back(floats_in_block(4));
  }
  send(sockets.here.get(), pack(tensors, SharedMode::kRead));
  send(sockets.here.get(), packed(floats_in_block(4)));
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const int status = in_child([&] {
    const rlimit few{static_cast<rlim_t>(dup(0)) + 8, limit.rlim_max};
    (void)setrlimit(RLIMIT_NOFILE, &few);
    try {
      (void)receive(sockets.there.get());
    } catch (const ConversionRefused& refused) {
      const bool advised = refused.reasons.at(0).find("ulimit -n") != std::string::npos &&
                           std::string_view(refused.what()).find("ulimit -n") != std::string::npos;
      return advised && receive(sockets.there.get())->tensors.size() == 1 ? 0 : 1;
    }
    return 2;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(SharedMemory, message_takes_descriptors_of_its_note_along) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(pipe2(pipe.data(), O_CLOEXEC), 0);
  const OwnedDescriptor reads(pipe[0]);
  std::vector<OwnedDescriptor> of_note;
  of_note.emplace_back(pipe[1]);
  const std::array<std::byte, 1> note{};
  const Sockets sockets;
  std::vector<ManagedTensor> tensors;
  tensors.push_back(floats_in_block(4));
  send(sockets.here.get(), pack(tensors, SharedMode::kRead, note, std::move(of_note)));
  Received received = *receive(sockets.there.get());
  ASSERT_EQ(received.of_note.size(), 1U);
  EXPECT_EQ(received.tensors.size(), 1U);
  EXPECT_EQ(write(received.of_note[0].get(), note.data(), 1), 1);
  received.of_note.clear();
  std::array<std::byte, 2> read_back{};
  EXPECT_EQ(read(reads.get(), read_back.data(), 2), 1);
  EXPECT_EQ(read(reads.get(), read_back.data(), 2), 0) << "nobody else has it";
}

TEST_F(SharedMemory, message_of_too_many_blocks_is_refused) {
  std::vector<ManagedTensor> tensors;
  for (int i = 0; i < 254; ++i) {
    tensors.push_back(floats_in_block(4));
  }
  EXPECT_THROW((void)pack(tensors, SharedMode::kRead), ConversionRefused);
  tensors.pop_back();
  Message message = pack(tensors, SharedMode::kRead);
  EXPECT_EQ(message.descriptors.size(), 253U);
  message.descriptors.emplace_back(dup(0));
  EXPECT_EQ(error_of([&] { send(Sockets().here.get(), message); }), EINVAL);
  EXPECT_EQ(unpack(message.bytes, std::move(message.descriptors)).tensors.size(), 253U);
}

}  // namespace
}  // namespace dlbridge
