#include "cuda/launcher.h"

#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace mythos::cuda {
namespace {

constexpr std::int64_t kScratchAlignment = 256;  // of the parts of one allocation: what cuMemAlloc gives
constexpr Address kPointerAlignment = 16;        // what the kernels were promised (launch_plan.py)

// Memory of a call, given back to its stream whatever happens.
class Memory {
 public:
  Memory(const Driver& driver, std::int64_t bytes, void* stream)
      : driver_(driver), stream_(stream), address_(bytes ? driver.allocate(static_cast<size_t>(bytes), stream) : 0) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    try {
      free();
    } catch (const std::exception&) {  // another error is on its way, and is the one to tell
    }
  }
  void free() {
    const Address address = std::exchange(address_, 0);
    if (address) driver_.free(address, stream_);
  }
  Address address() const { return address_; }

 private:
  const Driver& driver_;
  void* stream_;
  Address address_;
};

std::uint64_t bits_of(const Argument& argument, const Value& value) {
  std::uint64_t bits = 0;
  if (argument.kind == Argument::Kind::fp32) {
    const float number = static_cast<float>(value.real ? value.number : static_cast<double>(value.integer));
    std::memcpy(&bits, &number, sizeof number);
    return bits;
  }
  if (value.real) throw std::invalid_argument(argument.name + " is a float, and its kernel takes an integer");
  if (argument.kind == Argument::Kind::i64) {
    std::memcpy(&bits, &value.integer, sizeof value.integer);
    return bits;
  }
  if (value.integer != static_cast<std::int32_t>(value.integer))
    throw std::invalid_argument(argument.name + " is " + std::to_string(value.integer) +
                                ", and its kernel takes 32 bits: call with fewer tokens at once");
  const auto narrow = static_cast<std::int32_t>(value.integer);
  std::memcpy(&bits, &narrow, sizeof narrow);
  return bits;
}

unsigned extent(const Kernel& kernel, size_t axis, const Names& names) {
  const std::int64_t blocks = kernel.grid[axis].integer(names);
  const std::int64_t most = axis == 0 ? std::numeric_limits<std::int32_t>::max() : 65535;  // CUDA's
  if (blocks < 0 || blocks > most)
    throw std::invalid_argument(kernel.name + " would need " + std::to_string(blocks) + " blocks along axis " +
                                std::to_string(axis) + ", where a GPU has " + std::to_string(most) +
                                ": call with fewer tokens at once");
  return static_cast<unsigned>(blocks);
}

// Where each part begins in one allocation, and how large that is.
std::pair<std::vector<std::int64_t>, std::int64_t> laid_out(const std::vector<Scratch>& parts, const Names& names) {
  std::int64_t total = 0;
  std::vector<std::int64_t> offsets;
  for (const Scratch& part : parts) {
    offsets.push_back(total);
    std::int64_t bytes = part.element;
    bool overflow = false;
    for (const Expression& of : part.shape) {
      const std::int64_t extent = of.integer(names);
      if (extent < 0) throw std::invalid_argument(part.name + " would have an extent of " + std::to_string(extent));
      overflow = overflow || __builtin_mul_overflow(bytes, extent, &bytes);
    }
    overflow = overflow || __builtin_add_overflow(bytes, kScratchAlignment - 1, &bytes);
    if (overflow || __builtin_add_overflow(total, bytes / kScratchAlignment * kScratchAlignment, &total))
      throw std::invalid_argument(part.name + " would be larger than memory can be");
  }
  return {offsets, total};
}

}  // namespace

void Launcher::run(const Call& call, Buffers buffers, Names sizes, void* stream) {
  const Driver& driver = Driver::get();
  const Plan* plan = nullptr;
  Names names;
  for (const Plan* one : call.plans) {  // of a variant's plans the first that holds
    names = sizes;
    for (const auto& [name, expression] : one->derived) names[name] = Value::of(expression.integer(names));
    if (one->when.integer(names)) {
      plan = one;
      break;
    }
  }
  if (!plan) throw std::invalid_argument("no plan of " + call.variant + " is for these sizes");
  const auto [offsets, total] = laid_out(plan->scratch, names);
  for (const auto& [name, address] : buffers)
    if (address % kPointerAlignment)
      throw std::invalid_argument(name + " begins at an address that is no multiple of " +
                                  std::to_string(kPointerAlignment) + " bytes, as the kernels were promised");
  Memory memory(driver, total, stream);
  for (size_t i = 0; i < offsets.size(); ++i)
    buffers[plan->scratch[i].name] = memory.address() + static_cast<Address>(offsets[i]);
  for (const Kernel* kernel : plan->launches) {
    Names known = names;
    for (const auto& [name, value] : kernel->constants) known[name] = value;
    const Loaded ready = load(driver, *kernel);
    Launch launch{ready.function,
                  {extent(*kernel, 0, known), extent(*kernel, 1, known), extent(*kernel, 2, known)},
                  kernel->threads, ready.shared_bytes, {}};
    if (!launch.grid[0] || !launch.grid[1] || !launch.grid[2]) continue;  // without blocks it is an error to CUDA
    for (const Argument& argument : kernel->arguments)
      launch.arguments.push_back(argument.kind == Argument::Kind::pointer ? buffers.at(argument.buffer)
                                                                          : bits_of(argument, argument.scalar.value(known)));
    launch.arguments.insert(launch.arguments.end(), 2, 0);  // Triton's own scratch, which none of them uses
    driver.launch(launch, stream);
  }
  memory.free();
}

Launcher::Loaded Launcher::load(const Driver& driver, const Kernel& kernel) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Context& context = contexts_[driver.context()];
  const auto known = context.loaded.find(kernel.name);
  if (known != context.loaded.end()) return known->second;
  if (!context.capability) context.capability = driver.capability();
  const auto found = kernel.binaries.find(context.capability);
  if (found == kernel.binaries.end()) {
    std::string built;
    for (const std::string& name : program_->architectures) built += (built.empty() ? "" : ", ") + name;
    const std::string here = std::to_string(context.capability);
    const std::string where = program_->folder.empty() ? "of the engine" : "in " + program_->folder;
    throw std::runtime_error("the kernels " + where + " were compiled for " + built + ", this GPU is sm_" + here +
                             ": export again with --target " + program_->target + " --sm " + here);
  }
  const Binary& binary = found->second;
  const std::string image = code_of(*program_, binary);
  return context.loaded[kernel.name] = {driver.function(image, binary.entry, binary.shared_bytes), binary.shared_bytes};
}

}  // namespace mythos::cuda
