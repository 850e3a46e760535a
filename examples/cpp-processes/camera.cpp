// Takes photographs, and sends each to whoever is connected: the viewer beside this file, or
// Python, by dlbridge.recv(). A photograph is written once, into memory that the other side maps.
//
//     ./camera /tmp/camera & ./viewer /tmp/camera

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "dlbridge/shared_memory.hpp"

namespace {

constexpr dlbridge::DType kByte{kDLUInt, 8};
constexpr std::int64_t kShape[] = {480, 640, 3};

// A photograph of nothing but light, brighter each time.
dlbridge::ManagedTensor photograph(int number) {
  dlbridge::ManagedTensor image =
      dlbridge::SharedArena(dlbridge::SharedMode::kRead).allocate(kByte, kShape);
  std::memset(image.data(), 10 * number, 480 * 640 * 3);
  return image;
}

dlbridge::OwnedDescriptor first_viewer(const char* place) {
  const dlbridge::OwnedDescriptor door(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, place, sizeof address.sun_path - 1);
  if (bind(door.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(door.get(), 1) != 0) {
    return {};
  }
  return dlbridge::OwnedDescriptor(accept(door.get(), nullptr, nullptr));
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fputs("camera PLACE: sends ten photographs to who connects to the socket at PLACE\n",
               stderr);
    return 2;
  }
  const dlbridge::OwnedDescriptor viewer = first_viewer(arguments[1]);
  if (viewer.get() < 0) {
    std::perror("camera");
    return 1;
  }
  try {
    for (int number = 1; number <= 10; ++number) {
      std::vector<dlbridge::ManagedTensor> images;
      images.push_back(photograph(number));
      dlbridge::send(viewer.get(), dlbridge::pack(images, dlbridge::SharedMode::kRead));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "camera: %s\n", error.what());
    return 1;
  }
  std::printf("camera: ten photographs in %zu blocks\n", dlbridge::mapped_blocks());
  return 0;
}
