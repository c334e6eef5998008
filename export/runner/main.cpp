// Run a bundle's program on its golden inputs, without Python: what a phone's own processor computes.
//
//   runner PROGRAM.pte golden.safetensors OUT.safetensors [FRAMES]
//
// encode_avatar once and render_layers FRAMES times (1), on one thread. OUT gets the outputs of both, float32, named as in
// the manifest. Errors go to stderr, with exit status 2.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::EValue;
using Floats = std::vector<float>;

namespace {

std::runtime_error failure(const std::string& what) { return std::runtime_error(what); }

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw failure(path + " can't be read. Check the path.");
  return {std::istreambuf_iterator<char>(file), {}};
}

float from_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 0x3ffu;
  if (exponent == 0) {  // zero, or smaller than the smallest normal one
    const float value = static_cast<float>(fraction) / (1 << 24);
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A safetensors file as the Python library writes it: dtype, shape and data_offsets, in this order.
class Tensors {
 public:
  explicit Tensors(const std::string& path) : path_(path), data_(read_file(path)) {
    uint64_t size = 0;
    if (data_.size() >= 8) std::memcpy(&size, data_.data(), 8);
    if (size == 0 || size > data_.size() - 8) throw failure(path + " is no safetensors file.");
    header_ = data_.substr(8, size);
    start_ = 8 + size;
  }

  // As float32; bytes become [0, 1].
  Floats floats(const std::string& name) const {
    const size_t place = header_.find("\"" + name + "\":{\"dtype\":\"");
    if (place == std::string::npos) throw failure(path_ + " lacks " + name + ".");
    const size_t kind = place + name.size() + 13;
    const std::string dtype = header_.substr(kind, header_.find('"', kind) - kind);
    const size_t offsets = header_.find("\"data_offsets\":[", kind);
    unsigned long long begin = 0, end = 0;
    if (offsets == std::string::npos || std::sscanf(header_.c_str() + offsets, "\"data_offsets\":[%llu,%llu]", &begin, &end) != 2 ||
        begin > end || end > data_.size() - start_)
      throw failure(path_ + " is damaged at " + name + ".");
    const char* from = data_.data() + start_ + begin;
    const size_t bytes = end - begin;
    Floats out;
    if (dtype == "F32") {
      out.resize(bytes / 4);
      std::memcpy(out.data(), from, out.size() * 4);
    } else if (dtype == "F16") {
      for (size_t i = 0; i + 1 < bytes; i += 2) {
        uint16_t half;
        std::memcpy(&half, from + i, 2);
        out.push_back(from_half(half));
      }
    } else if (dtype == "U8") {
      for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(from[i]) / 255.0f);
    } else {
      throw failure(path_ + ": " + name + " is of type " + dtype + "; F32, F16 and U8 are known.");
    }
    return out;
  }

 private:
  std::string path_, data_, header_;
  size_t start_ = 0;
};

struct Output {
  std::string name;
  std::vector<int> shape;
  Floats values;
};

std::string list(const std::vector<int>& numbers) {
  std::string out;
  for (int n : numbers) out += (out.empty() ? "" : ",") + std::to_string(n);
  return out;
}

void write_tensors(const std::string& path, const std::vector<Output>& outputs) {
  std::string header = "{";
  size_t place = 0;
  for (const Output& out : outputs) {
    const size_t end = place + out.values.size() * 4;
    header += (place ? ",\"" : "\"") + out.name + "\":{\"dtype\":\"F32\",\"shape\":[" + list(out.shape) + "],\"data_offsets\":[" +
              std::to_string(place) + "," + std::to_string(end) + "]}";
    place = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t size = header.size();
  const std::string aside = path + ".part";  // what was there stays until this is whole
  std::ofstream file(aside, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), 8).write(header.data(), header.size());
  for (const Output& out : outputs) file.write(reinterpret_cast<const char*>(out.values.data()), out.values.size() * 4);
  file.close();
  if (!file || std::rename(aside.c_str(), path.c_str()) != 0) {
    std::remove(aside.c_str());
    throw failure(path + " can't be written. Check the path.");
  }
}

// A method's outputs, copied: the runtime uses their memory again.
std::vector<Output> run(Module& module, const std::string& method, std::vector<Floats> inputs, const std::vector<std::string>& names) {
  const auto meta = module.method_meta(method);
  if (!meta.ok()) throw failure("The program has no method " + method + " that can be loaded.");
  if (meta->num_inputs() != inputs.size() || meta->num_outputs() != names.size())
    throw failure(method + " takes or gives another number of tensors than it should.");
  std::vector<executorch::extension::TensorPtr> tensors;
  std::vector<EValue> arguments;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto info = meta->input_tensor_meta(i);
    if (!info.ok() || info->scalar_type() != ScalarType::Float || info->nbytes() != inputs[i].size() * 4)
      throw failure(method + ": input " + std::to_string(i) + " of the program and of the golden vectors differ in size or type.");
    tensors.push_back(from_blob(inputs[i].data(), {info->sizes().begin(), info->sizes().end()}));
    arguments.emplace_back(tensors.back());
  }
  const auto result = module.execute(method, arguments);
  if (!result.ok()) throw failure(method + " could not be run (error " + std::to_string(static_cast<int>(result.error())) + ").");
  std::vector<Output> outputs;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto& tensor = result->at(i).toTensor();
    const float* values = tensor.const_data_ptr<float>();
    outputs.push_back({names[i], {tensor.sizes().begin(), tensor.sizes().end()}, {values, values + tensor.numel()}});
  }
  return outputs;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count < 4 || count > 5) throw failure("usage: runner PROGRAM.pte golden.safetensors OUT.safetensors [FRAMES]");
    const int frames = count > 4 ? std::atoi(arguments[4]) : 1;
    if (frames < 1 || frames > 1000000) throw failure("FRAMES must be a number above 0.");
    const Tensors golden(arguments[2]);
    const executorch::extension::threadpool::NoThreadPoolGuard one_thread;
    Module module(arguments[1]);
    if (module.load(executorch::runtime::Program::Verification::InternalConsistency) != executorch::runtime::Error::Ok) throw failure(std::string(arguments[1]) + " is no program that this runtime can load.");
    const Floats source = golden.floats("source_points");
    std::vector<Output> outputs =
        run(module, "encode_avatar", {golden.floats("image"), source}, {"landmark_features", "map_features", "alpha"});
    const std::vector<Floats> frame{golden.floats("landmark_features"), golden.floats("map_features"), source, golden.floats("driving_points")};
    std::vector<Output> layers;
    std::vector<double> took_ms;
    for (int i = 0; i < frames; ++i) {
      const auto begun = std::chrono::steady_clock::now();
      layers = run(module, "render_layers", frame, {"layers_a", "layers_b"});
      took_ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begun).count());
    }
    outputs.insert(outputs.end(), layers.begin(), layers.end());
    write_tensors(arguments[3], outputs);
    std::sort(took_ms.begin(), took_ms.end());
    std::printf("%.3f ms a frame, median of %d\n", took_ms[took_ms.size() / 2], frames);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
