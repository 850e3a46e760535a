// A C++ library with a Python face, whose images speak no protocol: one bridge takes
// them to and from every other library.

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

constexpr dlbridge::Library kLibrary{.name = "grid", .object = "grid.Image"};

struct Bridge {
  using Object = Image;

  // Out of an image: what a plan has to know, and a view that keeps the pixels.
  static void describe(const Image& image, dlbridge::Source& source) {
    source.traits.library = &kLibrary;
    source.tensor.data = image.pixels.get();
    source.tensor.device = dlbridge::Device{}.dl();
    source.tensor.dtype = dlbridge::DType{kDLUInt, 8}.dl();
    source.tensor.ndim = 2;
    std::int64_t* shape = source.room.data();
    shape[0] = image.height;
    shape[1] = image.width;
    source.tensor.shape = shape;
    source.tensor.strides = nullptr;  // C order
  }
  static dlbridge::ManagedTensor acquire(const Image& image, dlbridge::Source& source) {
    auto* held = new std::shared_ptr<std::uint8_t[]>(image.pixels);
    return dlbridge::ManagedTensor::own(
        source.tensor, 0, {held, [](void* context) noexcept {
                             delete static_cast<std::shared_ptr<std::uint8_t[]>*>(context);
                           }});
  }

  // Into an image: what it can be made of, and the image over that memory.
  static const dlbridge::Capabilities& capabilities(const dlbridge::Source& /*source*/) {
    static constexpr dlbridge::Capabilities kCapabilities{
        .name = "grid",
        .result = "grid.Image",
        .devices = dlbridge::DeviceSet::host(),
        .wants_host = true,
        .dtypes = dlbridge::DTypeSet::of({"uint8"}),
        .readonly = dlbridge::ReadOnlySupport::kUnaware,
        .strides = dlbridge::StrideSupport::kCompact,
        .min_dimensions = 2,
        .max_dimensions = 2,
    };
    return kCapabilities;
  }
  static Image deliver(dlbridge::ManagedTensor tensor) {
    const auto height = tensor.shape()[0];
    const auto width = tensor.shape()[1];
    auto owner = std::make_shared<dlbridge::ManagedTensor>(std::move(tensor));
    auto* pixels = static_cast<std::uint8_t*>(owner->data());
    return {height, width, {owner, pixels}};
  }

  // Images as Python holds them.
  static PyTypeObject* python_type() {
    return reinterpret_cast<PyTypeObject*>(nanobind::type<Image>().ptr());
  }
  static const Image& from_python(PyObject* object) { return *nanobind::inst_ptr<Image>(object); }
  static PyObject* to_python(Image image) {
    return nanobind::cast(std::move(image)).release().ptr();
  }
};

}  // namespace

NB_MODULE(grid, module) {
  nanobind::class_<Image>(module, "Image").def_prop_ro("size", [](const Image& image) {
    return nanobind::make_tuple(image.height, image.width);
  });
  if (dlbridge::register_bridge<Bridge>("grid", "grid.Image") != 0) {
    nanobind::raise_python_error();
  }
}
