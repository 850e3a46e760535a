// A C++ library with a Python face, whose images speak no protocol: registered with dlbridge, they
// cross to and from every other library.

#include <nanobind/nanobind.h>

#include <dlbridge/register.hpp>
#include <memory>

namespace {

// Eight-bit greyscale, rows one after another.
struct Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::shared_ptr<std::uint8_t[]> pixels;
};

dlbridge::ManagedTensor read(PyObject* object) {
  const Image& image = *nanobind::inst_ptr<Image>(object);
  std::int64_t shape[] = {image.height, image.width};
  std::int64_t strides[] = {image.width, 1};
  DLTensor tensor{};
  tensor.data = image.pixels.get();
  tensor.device = dlbridge::Device{}.dl();
  tensor.dtype = dlbridge::DType{kDLUInt, 8}.dl();
  tensor.ndim = 2;
  tensor.shape = shape;
  tensor.strides = strides;
  auto* held = new std::shared_ptr<std::uint8_t[]>(image.pixels);
  return dlbridge::ManagedTensor::own(
      tensor, 0, {held, [](void* context) noexcept {
                    delete static_cast<std::shared_ptr<std::uint8_t[]>*>(context);
                  }});
}

PyObject* take(dlbridge::ManagedTensor tensor) {
  const auto height = tensor.shape()[0];
  const auto width = tensor.shape()[1];
  auto owner = std::make_shared<dlbridge::ManagedTensor>(std::move(tensor));
  auto* pixels = static_cast<std::uint8_t*>(owner->data());
  return nanobind::cast(Image{height, width, {owner, pixels}}).release().ptr();
}

// What an image can be made of.
constexpr dlbridge::Capabilities kCapabilities{
    .name = "grid",
    .result = "grid.Image",
    .devices = dlbridge::DeviceSet::host(),
    .dtypes = dlbridge::DTypeSet::of({"uint8"}),
    .readonly = dlbridge::ReadOnlySupport::kUnaware,
    .negative_strides = false,
    .any_strides = false,
    .min_dimensions = 2,
    .max_dimensions = 2,
};

constexpr dlbridge::PythonLibrary kGrid{.name = "grid",
                                        .object = "grid.Image",
                                        .read = read,
                                        .capabilities = &kCapabilities,
                                        .take = take};

}  // namespace

NB_MODULE(grid, module) {
  nanobind::class_<Image>(module, "Image").def_prop_ro("size", [](const Image& image) {
    return nanobind::make_tuple(image.height, image.width);
  });
  if (dlbridge::register_library(kGrid) != 0) {
    nanobind::raise_python_error();
  }
}
