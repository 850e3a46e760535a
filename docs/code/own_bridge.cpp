// A bridge of one's own: a library `grid` with a type Image, into and out of torch.

#include <ATen/ATen.h>

#include <dlbridge/convert.hpp>
#include <dlbridge/tensor_view.hpp>
#include <dlbridge/torch.hpp>
#include <iostream>
#include <memory>

namespace grid {

// Eight-bit greyscale, rows one after another, shared by whoever holds `pixels`.
struct Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::shared_ptr<std::uint8_t[]> pixels;
  bool frozen = false;  // nobody may write to it
};

// How its users speak, for the messages.
inline constexpr dlbridge::Library kLibrary{
    .name = "grid",
    .object = "grid::Image",
    .fixes = {{{dlbridge::Condition::kReadOnly, "x.clone()"}}},
};

struct Bridge {
  using Object = Image;

  // What a plan has to know. Takes nothing from the image; `source` borrows from it.
  static void describe(const Image& image, dlbridge::Source& source) {
    source.traits.library = &kLibrary;
    source.traits.conditions.add_if(image.frozen, dlbridge::Condition::kReadOnly);
    source.tensor.data = image.pixels.get();
    source.tensor.dtype = dlbridge::DType{kDLUInt, 8}.dl();
    source.tensor.device = dlbridge::Device{}.dl();
    source.tensor.ndim = 2;
    // The image has no array of sizes, so `room` holds it: strides in front, the shape behind.
    source.room[0] = image.width;
    source.room[1] = 1;
    source.room[2] = image.height;
    source.room[3] = image.width;
    source.tensor.strides = source.room.data();
    source.tensor.shape = source.room.data() + 2;
  }

  // A view that keeps the pixels, whatever becomes of the image.
  static dlbridge::ManagedTensor acquire(const Image& image, dlbridge::Source& source) {
    auto* held = new std::shared_ptr<std::uint8_t[]>(image.pixels);
    const dlbridge::Lease lease{held, [](void* context) noexcept {
                                  delete static_cast<std::shared_ptr<std::uint8_t[]>*>(context);
                                }};
    return dlbridge::ManagedTensor::own(source.tensor,
                                        image.frozen ? DLPACK_FLAG_BITMASK_READ_ONLY : 0, lease);
  }

  // What an Image can be made of: bytes on the host, in C order, which it will write to.
  static const dlbridge::Capabilities& capabilities(const dlbridge::Source& /*source*/) {
    static constexpr dlbridge::Capabilities kCapabilities{
        .name = "grid",
        .result = "grid::Image",
        .devices = dlbridge::DeviceSet::host(),
        .wants_host = true,
        .dtypes = dlbridge::DTypeSet::of({"uint8"}),
        .readonly = dlbridge::ReadOnlySupport::kUnaware,
        .strides = dlbridge::StrideSupport::kCompact,
        .max_dimensions = 2,
    };
    return kCapabilities;
  }

  // An image over the tensor's memory. The plan has seen to type, layout and device; what it cannot
  // know, the bridge checks here, and the tensor is released when it throws.
  static Image deliver(dlbridge::ManagedTensor tensor) {
    if (tensor.ndim() != 2) {
      throw dlbridge::ConversionRefused("a grid::Image has two dimensions", {"not two dimensions"});
    }
    const auto height = tensor.shape()[0];
    const auto width = tensor.shape()[1];
    auto owner = std::make_shared<dlbridge::ManagedTensor>(std::move(tensor));
    auto* pixels = static_cast<std::uint8_t*>(owner->data());
    return {height, width, {owner, pixels}};
  }
};

static_assert(dlbridge::Producer<Bridge> && dlbridge::Consumer<Bridge>);

}  // namespace grid

int main() {
  grid::Image image{2, 3, std::shared_ptr<std::uint8_t[]>(new std::uint8_t[6]{1, 2, 3, 4, 5, 6})};

  const auto tensor = dlbridge::convert<grid::Bridge, dlbridge::Torch>(image);
  image.pixels[0] = 9;  // one memory
  std::cout << tensor[0][0].item<int>() << '\n';

  const auto transposed = dlbridge::convert<dlbridge::Torch, grid::Bridge>(tensor.t());  // a copy
  std::cout << transposed.height << " x " << transposed.width << '\n';

  image.frozen = true;
  try {
    (void)dlbridge::convert<grid::Bridge, dlbridge::Torch>(image, dlbridge::Policy::zero_copy());
  } catch (const dlbridge::ConversionRefused& refused) {
    std::cout << refused.what() << '\n';
  }
  const bool right = tensor[0][0].item<int>() == 9 && transposed.height == 3;
  return right ? 0 : 1;
}
