// Messages over AF_UNIX sockets. The descriptors go with a message's first bytes: whatever becomes
// of the sender then, they arrive.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "dlbridge/error.hpp"
#include "dlbridge/shared_memory.hpp"
#include "ipc/message.hpp"
#include "ipc/shared_block.hpp"

#ifdef __linux__
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#endif

namespace dlbridge {

#ifdef __linux__

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(int error, const std::string& what) {
  const bool many = error == ETOOMANYREFS || error == EMFILE;
  throw std::system_error(error, std::generic_category(),
                          many ? what +
                                     " (too many descriptors are on their way: raise `ulimit "
                                     "-n`, or let the other side read first)"
                               : what);
}

// One direction of a socket, until a time.
class Side {
 public:
  Side(int socket, short event, const Waiting& waiting, const char* doing)
      : socket_(socket),
        event_(event),
        waiting_(waiting),
        doing_(doing),
        limited_(waiting.timeout.has_value()) {
    if (limited_) {
      // A clock counts in nanoseconds, which milliseconds::max() has not room for.
      constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 365 * 100);
      until_ = Clock::now() + std::clamp(*waiting.timeout, std::chrono::milliseconds(0), kForever);
    }
  }

  // Runs `call`, which is given flags, until it has moved bytes: how many.
  template <typename Call>
  std::size_t move(Call&& call) {
    for (;;) {
      // The kernel knows nothing of our limit, and would wait in a socket that blocks.
      const ssize_t moved = call(limited_ ? MSG_DONTWAIT : 0);
      if (moved >= 0) {
        return static_cast<std::size_t>(moved);
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        wait();
      } else if (errno == EINTR) {
        ask();
      } else {
        fail(errno, doing_);
      }
    }
  }

  /// From here on there is no time limit: half a message would leave the stream of no use.
  void begun() noexcept { limited_ = false; }

 private:
  void ask() const {
    if (waiting_.go_on != nullptr && !waiting_.go_on()) {
      fail(EINTR, doing_);
    }
  }

  void wait() const {
    int left = -1;
    if (limited_) {
      const auto rest = std::chrono::ceil<std::chrono::milliseconds>(until_ - Clock::now());
      if (rest.count() <= 0) {
        fail(waiting_.timeout->count() == 0 ? EAGAIN : ETIMEDOUT, doing_);
      }
      left = static_cast<int>(std::min<std::int64_t>(rest.count(), 1 << 30));
    }
    pollfd waited{socket_, event_, 0};
    if (poll(&waited, 1, left) < 0) {
      if (errno != EINTR) {
        fail(errno, doing_);
      }
      ask();
    }
  }

  int socket_;
  short event_;
  const Waiting& waiting_;
  const char* doing_;
  bool limited_;
  Clock::time_point until_{};
};

int option(int socket, int name, const char* doing) {
  int value = 0;
  socklen_t size = sizeof value;
  if (getsockopt(socket, SOL_SOCKET, name, &value, &size) != 0) {
    fail(errno, doing);
  }
  return value;
}

void require_stream(int socket, const char* doing) {
  if (option(socket, SO_DOMAIN, doing) != AF_UNIX ||
      option(socket, SO_TYPE, doing) != SOCK_STREAM) {
    throw std::system_error(EPROTOTYPE, std::generic_category(),
                            std::string(doing) +
                                ": it takes a connected AF_UNIX socket of the type "
                                "SOCK_STREAM, by which descriptors can travel");
  }
}

// Another user's messages could name memory that is not meant for this one, and keep it locked.
void require_same_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    fail(errno, "cannot ask who sends over this socket");
  }
  if (peer.pid == 0 && peer.uid == static_cast<uid_t>(-1)) {
    fail(ENOTCONN, "cannot receive a message");
  }
  if (peer.uid != geteuid()) {
    throw ConversionRefused(
        "cannot take a message in: its sender is another user",
        {"the user " + std::to_string(peer.uid) + " sent it, and this process is of the user " +
         std::to_string(geteuid())});
  }
}

// Room for the most descriptors that the kernel passes on at once.
struct Control {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(detail::kMostBlocks * sizeof(int))> bytes;
};

// Whether all arrived.
bool take_descriptors(msghdr& header, std::vector<OwnedDescriptor>& descriptors) {
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    std::array<int, detail::kMostBlocks> numbers{};
    std::memcpy(numbers.data(), CMSG_DATA(each), count * sizeof(int));
    for (std::size_t i = 0; i < count; ++i) {
      descriptors.emplace_back(numbers[i]);  // room was reserved: none is lost
    }
  }
  return (header.msg_flags & MSG_CTRUNC) == 0;
}

}  // namespace

void send(int socket, const Message& message, const Waiting& waiting) {
  const char* doing = "cannot send a message";
  require_stream(socket, doing);
  Side side(socket, POLLOUT, waiting, doing);
  Control control{};
  const std::size_t count = message.descriptors.size();
  if (count > detail::kMostBlocks) {  // of a message that pack() did not make
    fail(EINVAL, std::string(doing) + " with " + std::to_string(count) +
                     " descriptors: the kernel takes at most " +
                     std::to_string(detail::kMostBlocks));
  }
  std::size_t sent = 0;
  while (sent < message.bytes.size()) {
    iovec part{const_cast<std::byte*>(message.bytes.data()) + sent, message.bytes.size() - sent};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (sent == 0 && count != 0) {
      header.msg_control = control.bytes.data();
      header.msg_controllen = CMSG_SPACE(count * sizeof(int));
      cmsghdr* first = CMSG_FIRSTHDR(&header);
      first->cmsg_level = SOL_SOCKET;
      first->cmsg_type = SCM_RIGHTS;
      first->cmsg_len = CMSG_LEN(count * sizeof(int));
      for (std::size_t i = 0; i < count; ++i) {
        const int number = message.descriptors[i].get();
        std::memcpy(CMSG_DATA(first) + i * sizeof(int), &number, sizeof number);
      }
    }
    sent += side.move([&](int flags) { return sendmsg(socket, &header, MSG_NOSIGNAL | flags); });
    side.begun();
  }
}

std::optional<Received> receive(int socket, const Waiting& waiting) {
  const char* doing = "cannot receive a message";
  require_stream(socket, doing);
  require_same_user(socket);
  Side side(socket, POLLIN, waiting, doing);
  std::vector<OwnedDescriptor> descriptors;
  descriptors.reserve(detail::kMostBlocks);
  std::vector<std::byte> bytes(sizeof(detail::MessageHead));
  std::size_t whole = bytes.size();
  std::size_t got = 0;
  bool arrived = true;
  while (got < whole) {
    constexpr std::size_t kAtOnce = std::size_t{1} << 20;  // what it says it has may never come
    bytes.resize(std::min(whole, std::max(bytes.size(), got + kAtOnce)));
    iovec part{bytes.data() + got, bytes.size() - got};
    Control control;
    msghdr header{};
    const std::size_t moved = side.move([&](int flags) {
      header = {};
      header.msg_iov = &part;
      header.msg_iovlen = 1;
      header.msg_control = control.bytes.data();
      header.msg_controllen = control.bytes.size();
      return recvmsg(socket, &header, MSG_CMSG_CLOEXEC | flags);
    });
    const std::size_t before = descriptors.size();
    descriptors.reserve(before + detail::kMostBlocks);
    arrived = take_descriptors(header, descriptors) && arrived;
    if (moved == 0) {
      if (got == 0) {
        return std::nullopt;
      }
      fail(ECONNRESET, "the sender ended in the middle of a message");
    }
    got += moved;
    side.begun();
    if (got == sizeof(detail::MessageHead) && whole == got) {
      whole = static_cast<std::size_t>(detail::head_of(bytes).bytes);
    }
    if (descriptors.size() > detail::kMostBlocks) {
      throw ConversionRefused("cannot take a message in: it came with too many descriptors",
                              {"it came with more descriptors than a message may have"});
    }
  }
  if (!arrived) {  // told when the message was read to its end: the next one can be received
    (void)detail::release_blocks();  // whose descriptors it may have room for
    throw ConversionRefused(
        "cannot take a message in: not all of its descriptors arrived, for which this process has "
        "no room; raise `ulimit -n`, or keep fewer trees, and have it sent again",
        {"this process has no room for more of them: raise `ulimit -n`, or keep fewer trees"});
  }
  return unpack(bytes, std::move(descriptors));
}

#else

void send(int /*socket*/, const Message& /*message*/, const Waiting& /*waiting*/) {
  detail::not_here();
}
std::optional<Received> receive(int /*socket*/, const Waiting& /*waiting*/) {
  detail::not_here();
}

#endif

}  // namespace dlbridge
