// Blocks: who may write to them, when they are used again, and that nothing is left of them.

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <csignal>
#include <system_error>
#include <thread>

#include "dlbridge/error.hpp"
#include "lib/ipc/shared_fixture.hpp"
#include "lib/memory/failing_memory.hpp"

namespace dlbridge {
namespace {

using namespace doubles;  // NOLINT(google-build-using-namespace)

// What a write through a mapping for reading ends a process with.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kEndsBySignal = false;  // a sanitizer reports it, and ends with a status
#else
constexpr bool kEndsBySignal = true;
#endif

TEST_F(SharedMemory, of_one_arena_is_one_block_in_aligned_pieces) {
  const std::int64_t shape[] = {3};
  SharedArena arena(SharedMode::kRead, 2 * SharedArena::room_for(12));
  const ManagedTensor a = arena.allocate(kFloat32, shape);
  const ManagedTensor b = arena.allocate(kFloat32, shape);
  EXPECT_EQ(mapped_blocks(), 1U);
  EXPECT_EQ(static_cast<std::byte*>(b.data()) - static_cast<std::byte*>(a.data()), 64);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0U);
  EXPECT_FALSE(a.readonly());
  EXPECT_TRUE(can_share(a.tensor(), SharedMode::kWrite));
}

TEST_F(SharedMemory, that_was_not_planned_has_a_block_of_its_own) {
  const std::int64_t small[] = {3};
  const std::int64_t large[] = {1 << 20};
  SharedArena arena(SharedMode::kRead, 64);
  const ManagedTensor a = arena.allocate(kFloat32, small);
  const ManagedTensor b = arena.allocate(kFloat32, large);
  EXPECT_EQ(mapped_blocks(), 2U);
}

TEST_F(SharedMemory, of_no_elements_takes_no_block) {
  const std::int64_t shape[] = {3, 0};
  const ManagedTensor empty = SharedArena(SharedMode::kRead).allocate(kFloat32, shape);
  EXPECT_EQ(mapped_blocks(), 0U);
  EXPECT_TRUE(can_share(empty.tensor(), SharedMode::kWrite));
  const Received received = passed(empty);
  EXPECT_THAT(received.tensors.at(0).shape(), testing::ElementsAre(3, 0));
}

TEST_F(SharedMemory, elsewhere_cannot_be_shared) {
  const std::int64_t shape[] = {3};
  const ManagedTensor elsewhere = ManagedTensor::allocate(kFloat32, shape);
  EXPECT_FALSE(can_share(elsewhere.tensor(), SharedMode::kRead));
  EXPECT_THROW((void)packed(elsewhere), ConversionRefused);
  EXPECT_THROW((void)copy_on_write(elsewhere), ConversionRefused);
  const ManagedTensor in_block = floats_in_block(3);
  EXPECT_FALSE(can_share(elsewhere.tensor(), SharedMode::kRead));
  EXPECT_TRUE(can_share(in_block.tensor(), SharedMode::kRead));
}

TEST_F(SharedMemory, for_reading_can_only_be_read_by_others) {
  const ManagedTensor mine = floats_in_block(4, 1);
  const Received received = passed(mine);
  const ManagedTensor& theirs = received.tensors.at(0);
  EXPECT_TRUE(theirs.readonly());
  EXPECT_NE(theirs.data(), mine.data());
  EXPECT_EQ(at(theirs, 3), 4);
  static_cast<float*>(mine.data())[3] = 7;
  EXPECT_EQ(at(theirs, 3), 7) << "the owner's writes are seen";
  const int status = in_child([&] {
    static_cast<float*>(theirs.data())[0] = 1;
    return 0;
  });
  EXPECT_TRUE(kEndsBySignal ? status == -SIGSEGV : status != 0) << status;
  EXPECT_FALSE(can_share(mine.tensor(), SharedMode::kWrite)) << "it is sealed";
  EXPECT_THROW((void)packed(mine, SharedMode::kWrite), ConversionRefused);
  EXPECT_NE(mprotect(theirs.data(), 4096, PROT_READ | PROT_WRITE), 0);
}

TEST_F(SharedMemory, that_is_given_can_be_written_to) {
  for (const SharedMode mode : {SharedMode::kGive, SharedMode::kWrite}) {
    const ManagedTensor mine = floats_in_block(4, 1, mode);
    const Received received = passed(mine, mode);
    EXPECT_FALSE(received.tensors.at(0).readonly());
    EXPECT_EQ(in_child([&] {
                static_cast<float*>(received.tensors.at(0).data())[2] = 9;
                return 0;
              }),
              0);
    EXPECT_EQ(at(mine, 2), 9);
  }
}

TEST_F(SharedMemory, is_promised_to_one_kind_of_receiver_at_a_time) {
  const ManagedTensor written = floats_in_block(4, 0, SharedMode::kWrite);
  Received writer = passed(written, SharedMode::kWrite);
  EXPECT_FALSE(can_share(written.tensor(), SharedMode::kRead));
  EXPECT_FALSE(can_share(written.tensor(), SharedMode::kGive));
  EXPECT_TRUE(can_share(written.tensor(), SharedMode::kWrite));
  EXPECT_FALSE(can_share(writer.tensors.at(0).tensor(), SharedMode::kRead));
  EXPECT_TRUE(is_in_block(written.tensor()));
  EXPECT_THROW((void)packed(written, SharedMode::kRead), ConversionRefused);
  writer = {};
  EXPECT_TRUE(can_share(written.tensor(), SharedMode::kRead)) << "they have let go of it";

  const ManagedTensor given = floats_in_block(4, 0, SharedMode::kGive);
  const Message first = packed(given, SharedMode::kGive);
  for (const SharedMode mode : {SharedMode::kRead, SharedMode::kGive, SharedMode::kWrite}) {
    EXPECT_FALSE(can_share(given.tensor(), mode));
    EXPECT_THROW((void)packed(given, mode), ConversionRefused);
  }
}

TEST_F(SharedMemory, that_was_read_only_stays_so_when_it_is_given) {
  ManagedTensor mine = floats_in_block(4, 1, SharedMode::kWrite);
  mine.mark_read_only();
  EXPECT_TRUE(passed(mine, SharedMode::kWrite).tensors.at(0).readonly());
}

TEST_F(SharedMemory, strided_reversed_and_offset_arrives_as_it_is) {
  const ManagedTensor whole = floats_in_block(10);
  std::int64_t shape[] = {3};
  std::int64_t strides[] = {-2};
  DLTensor view = whole.tensor();
  view.data = static_cast<float*>(whole.data()) + 8;
  view.shape = shape;
  view.strides = strides;
  auto* held = new ManagedTensor(whole.share());
  const ManagedTensor reversed = ManagedTensor::own(
      view, 0, {held, [](void* context) noexcept { delete static_cast<ManagedTensor*>(context); }});
  const Received received = passed(reversed);
  EXPECT_THAT(received.tensors.at(0).strides(), testing::ElementsAre(-2));
  EXPECT_EQ(at(received.tensors.at(0), 0), 8);
  EXPECT_EQ(at(received.tensors.at(0), 2), 4);
}

TEST_F(SharedMemory, copied_on_write_keeps_both_sides_apart) {
  const ManagedTensor mine = floats_in_block(5000);  // more than a page
  Received received = passed(mine);
  const ManagedTensor own = copy_on_write(received.tensors.at(0));
  received = {};
  EXPECT_FALSE(own.readonly());
  EXPECT_EQ(at(own, 4999), 4999);
  static_cast<float*>(own.data())[0] = 42;
  EXPECT_EQ(at(mine, 0), 0);
  static_cast<float*>(mine.data())[0] = 17;
  EXPECT_EQ(at(own, 0), 42);
}

TEST_F(SharedMemory, of_padded_elements_is_copied_on_write_as_far_as_they_reach) {
  const std::int64_t count = std::int64_t{1} << 20;
  const std::int64_t shape[] = {count};
  const ManagedTensor bytes = SharedArena(SharedMode::kRead).allocate(DType{kDLUInt, 8}, shape);
  static_cast<std::byte*>(bytes.data())[count - 1] = std::byte{7};
  const ManagedTensor own = copy_on_write(as_int4(bytes, count));
  auto* last = static_cast<std::byte*>(own.data()) + count - 1;
  EXPECT_EQ(*last, std::byte{7});
  *last = std::byte{1};
  EXPECT_EQ(static_cast<std::byte*>(bytes.data())[count - 1], std::byte{7});
}

TEST_F(SharedMemory, is_used_again_only_when_nobody_has_it) {
  ManagedTensor mine = floats_in_block(4);
  const void* place = mine.data();
  Message message = packed(mine);
  mine = ManagedTensor();
  EXPECT_NE(floats_in_block(4).data(), place) << "a message is on its way";
  Received received = unpack(message.bytes, std::move(message.descriptors));
  EXPECT_NE(floats_in_block(4).data(), place) << "somebody reads it";
  EXPECT_EQ(at(received.tensors.at(0), 3), 3);
  received = {};
  std::vector<ManagedTensor> next;
  bool again = false;
  for (int i = 0; i < 3; ++i) {
    next.push_back(floats_in_block(4));
    again = again || next.back().data() == place;
  }
  EXPECT_TRUE(again);
}

TEST_F(SharedMemory, of_a_message_that_nobody_reads_is_free_when_it_ends) {
  ManagedTensor mine = floats_in_block(4);
  const void* place = mine.data();
  { const Message message = packed(mine); }
  mine = ManagedTensor();
  EXPECT_EQ(floats_in_block(4).data(), place);
}

TEST_F(SharedMemory, of_a_reader_that_was_killed_is_free) {
  ManagedTensor mine = floats_in_block(4);
  const void* place = mine.data();
  const Sockets sockets;
  std::array<int, 2> ready{};
  ASSERT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto received = receive(sockets.there.get());
    const char done = at(received->tensors.at(0), 1) == 1 ? 'y' : 'n';
    (void)!write(ready[1], &done, 1);
    pause();
    _exit(0);
  }
  mine = floats_in_block(4);  // of after the fork: the child has only the message's
  place = mine.data();
  send(sockets.here.get(), packed(mine));
  char done = 0;
  ASSERT_EQ(read(ready[0], &done, 1), 1);
  EXPECT_EQ(done, 'y');
  mine = ManagedTensor();
  EXPECT_NE(floats_in_block(4).data(), place);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  bool again = false;
  std::vector<ManagedTensor> next;
  for (int i = 0; i < 3; ++i) {
    next.push_back(floats_in_block(4));
    again = again || next.back().data() == place;
  }
  EXPECT_TRUE(again);
  (void)close(ready[0]);
  (void)close(ready[1]);
}

TEST_F(SharedMemory, of_a_sender_that_was_killed_arrives) {
  const Sockets sockets;
  EXPECT_EQ(in_child([&] {
              send(sockets.here.get(), packed(floats_in_block(4, 5)));
              return kill(getpid(), SIGKILL);
            }),
            -SIGKILL);
  const auto received = receive(sockets.there.get());
  ASSERT_TRUE(received);
  EXPECT_EQ(at(received->tensors.at(0), 2), 7);
}

TEST_F(SharedMemory, that_a_child_inherited_is_not_used_again) {
  ManagedTensor mine = floats_in_block(4);
  const void* place = mine.data();
  std::array<int, 2> go{};
  ASSERT_EQ(pipe(go.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    char letter = 0;
    (void)!read(go[0], &letter, 1);
    _exit(at(mine, 3) == 3 ? 0 : 1);
  }
  mine = ManagedTensor();
  const ManagedTensor next = floats_in_block(4, 100);
  EXPECT_TRUE(next.data() != place || mapped_blocks() == 1U);
  (void)!write(go[1], "x", 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the parent wrote over it";
  (void)close(go[0]);
  (void)close(go[1]);
}

TEST_F(SharedMemory, that_is_kept_is_the_parents_alone) {
  (void)floats_in_block(4);
  EXPECT_EQ(mapped_blocks(), 1U);
  EXPECT_EQ(in_child([] {
              const bool none = mapped_blocks() == 0;
              const ManagedTensor own = floats_in_block(4);
              return none && at(own, 3) == 3 ? 0 : 1;
            }),
            0);
  EXPECT_EQ(mapped_blocks(), 1U);
}

TEST_F(SharedMemory, keeps_a_mapping_for_the_next_message) {
  const ManagedTensor mine = floats_in_block(4);
  const void* place = passed(mine).tensors.at(0).data();
  EXPECT_EQ(passed(mine).tensors.at(0).data(), place);
  EXPECT_EQ(mapped_blocks(), 2U);
}

TEST_F(SharedMemory, without_descriptors_is_an_error_with_advice) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const int status = in_child([&] {
    const rlimit few{24, limit.rlim_max};
    (void)setrlimit(RLIMIT_NOFILE, &few);
    std::vector<ManagedTensor> many;
    try {
      for (;;) {
        many.push_back(floats_in_block(4));
      }
    } catch (const std::system_error& error) {
      many.clear();  // UBSan needs descriptors to look at the error
      release_pool();
      const bool advised = std::string(error.what()).find("ulimit -n") != std::string::npos;
      return error.code().value() == EMFILE && advised ? 0 : 1;
    }
    return 2;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(SharedMemory, that_the_system_has_not_is_bad_alloc) {
  const std::int64_t shape[] = {std::int64_t{1} << 40};
  EXPECT_THROW((void)SharedArena(SharedMode::kRead).allocate(kFloat32, shape), std::bad_alloc);
  const std::int64_t overflowing[] = {std::int64_t{1} << 62, 16};
  EXPECT_THROW((void)SharedArena(SharedMode::kRead).allocate(kFloat32, overflowing),
               ConversionRefused);
}

TEST_F(SharedMemory, whose_allocations_fail_leaves_nothing) {
  run_out_of_memory([] { return 0; },
                    [](int) {
                      const ManagedTensor mine = floats_in_block(4);
                      const Received received = passed(mine);
                      (void)copy_on_write(received.tensors.at(0));
                    },
                    [](int, const std::string&) {
                      release_pool();
                      EXPECT_EQ(mapped_blocks(), 0U);
                    });
}

TEST_F(SharedMemory, is_used_from_many_threads) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([thread, &wrong] {
      for (int i = 0; i < 200; ++i) {
        const auto first = static_cast<float>(1000 * thread + i);
        const ManagedTensor mine = floats_in_block(16, first);
        const Received received = passed(mine);
        wrong += at(received.tensors.at(0), 15) != first + 15 ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace dlbridge
