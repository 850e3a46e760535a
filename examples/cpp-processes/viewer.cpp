// Receives photographs until the camera has no more, and says how bright each is.

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <numeric>
#include <span>

#include "dlbridge/shared_memory.hpp"

namespace {

// Waits a while for the camera to be there.
dlbridge::OwnedDescriptor connected(const char* place) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, place, sizeof address.sun_path - 1);
  for (int attempt = 0; attempt < 100; ++attempt) {
    dlbridge::OwnedDescriptor camera(socket(AF_UNIX, SOCK_STREAM, 0));
    if (connect(camera.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
      return camera;
    }
    usleep(50'000);
  }
  return {};
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fputs("viewer PLACE: shows what the camera at PLACE sends\n", stderr);
    return 2;
  }
  const dlbridge::OwnedDescriptor camera = connected(arguments[1]);
  if (camera.get() < 0) {
    std::perror("viewer");
    return 1;
  }
  int photographs = 0;
  try {
    while (const auto received = dlbridge::receive(camera.get())) {
      const dlbridge::ManagedTensor& image = received->tensors.at(0);
      const auto size = static_cast<std::size_t>(dlbridge::byte_count(image.tensor()));
      const std::span bytes(static_cast<const std::uint8_t*>(image.data()), size);
      const auto sum = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
      const auto brightness = sum / static_cast<std::int64_t>(size);
      std::printf("viewer: a photograph of brightness %lld\n", static_cast<long long>(brightness));
      photographs += brightness == 10 * (photographs + 1) ? 1 : 0;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "viewer: %s\n", error.what());
    return 1;
  }
  return photographs == 10 ? 0 : 1;
}
