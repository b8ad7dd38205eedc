// Opening a device, the typed errors of its calls, launches' shared memory, and the point where faults of kernels
// surface.
#include "cuda/host/runtime.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <sstream>
#include <unordered_map>

#include "cuda/device/tensor_cores.cuh"
#include "cuda/host/graph.h"
#include "cuda/host/memory.h"
#include "cuda/host/open.h"
#include "cuda/host/prefetch.h"
#include "cuda/host/transfer.h"
#include "gpu/turn.h"

namespace temper::gpu {
namespace {

constexpr int kOldestMajor = 8;  // sm_80: bf16 mma and cp.async

struct State {
  std::mutex mutex;  // opening, closing, shared-memory limits
  Device device;
  std::atomic<bool> open{false};
  std::unordered_map<const void*, size_t> shared;  // kernel → dynamic bytes allowed so far
};
State& state() {  // never destroyed: worker threads may still call while the process exits
  static State* s = new State;
  return *s;
}

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

int attribute(cudaDeviceAttr which, int index) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, index), "cudaDeviceGetAttribute");
  return value;
}

// A description of one line for messages: "0: NVIDIA H200 (sm_90, 140 GiB)".
std::string text_of(const Description& d) {
  std::ostringstream out;
  out << d.index << ": " << d.name << " (sm_" << d.major << d.minor << ", " << (d.memory >> 30) << " GiB)";
  return out.str();
}
std::string list_of(const std::vector<Description>& all) {
  std::string out;
  for (const Description& d : all) out += (out.empty() ? "" : ", ") + text_of(d);
  return out;
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // errors that do not stick are taken off the thread
  const char* text = cudaGetErrorString(status);
  switch (status) {
    case cudaErrorMemoryAllocation:
      fail("out_of_device_memory", what,
           ": the device has no memory left for it; lower the tokens per step, the context or the rank, or close other "
           "programs on this GPU");
    case cudaErrorNoDevice:
      fail("no_device", what,
           ": the driver sees no CUDA device; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu");
    case cudaErrorInsufficientDriver:
      fail("driver_too_old", what, ": the driver is older than this build's CUDA ", version_text(versions().runtime),
           " needs (driver: CUDA ", version_text(versions().driver), "); update the driver, or use --device cpu");
    // After these the context is gone: every later call returns the same.
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
#if !defined(TEMPER_CUDA_EMULATION)  // codes that the emulation never returns
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContained:
    case cudaErrorUnknown:
#endif
      fail("device_lost", what, ": the device stopped (", text,
           "); what was saved is intact: start again, a training run with --resume");
#if !defined(TEMPER_CUDA_EMULATION)
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
      fail("device_unsupported", what, ": this build has no code for the device (", text,
           "); build for it with TEMPER_CUDA_ARCHITECTURES, or use --device cpu");
#endif
    default: fail("device_error", what, ": ", text, " (", cudaGetErrorName(status), ")");
  }
}

Device& device() {
  State& s = state();
  require(s.open.load(std::memory_order_acquire), "no_device", "no CUDA device is open; ask for one with device: cuda");
  // The runtime's current device belongs to the host thread; ops come from whichever worker runs them.
  static thread_local int bound = -1;
  if (bound != s.device.index) {
    check(cudaSetDevice(s.device.index), "cudaSetDevice");
    bound = s.device.index;
  }
  return s.device;
}

Versions versions() noexcept {
  Versions v;
  cudaRuntimeGetVersion(&v.runtime);
  cudaDriverGetVersion(&v.driver);
  return v;
}

std::vector<Description> devices() {
  require(versions().driver != 0, "no_driver",
          "no NVIDIA driver is installed; install one for this GPU, or use --device cpu");
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  require(count > 0, "no_device",
          "the driver sees no CUDA device; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu");
  std::vector<Description> all(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    Description& d = all[static_cast<size_t>(i)];
    d.index = i;
    d.major = properties.major;
    d.minor = properties.minor;
    d.multiprocessors = properties.multiProcessorCount;
    d.shared_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, i);
    d.memory = properties.totalGlobalMem;
    d.l2_bytes = static_cast<size_t>(properties.l2CacheSize);
    d.name = properties.name;
  }
  return all;
}

namespace {

// A chip that no part of the build was compiled for runs the PTX of another: on sm_100 that of sm_80, whose kernels do
// not wait. So the code says itself what it has.
#if !defined(TEMPER_CUDA_EMULATION)
__global__ void compiled_for(Fault* to) {
  wait_for_previous();
  to->at = kStartsEarly;
#if defined(TEMPER_HAS_WGMMA)
  to->value = 1;
#endif
}
#endif
void look_at_code(Device& d) {
#if defined(TEMPER_CUDA_EMULATION)
  d.early = d.major >= 9, d.warpgroups = d.major == 9;
#else
  void* arguments[] = {&d.fault};
  check(cudaLaunchKernel(reinterpret_cast<const void*>(compiled_for), dim3(1), dim3(1), arguments, 0, d.stream),
        "the first kernel");
  check(cudaStreamSynchronize(d.stream), "the first kernel");
  d.early = d.fault->at != 0, d.warpgroups = d.fault->value != 0;
  std::memset(static_cast<void*>(d.fault), 0, sizeof(Fault));
#endif
  const char* early = std::getenv("TEMPER_CUDA_EARLY");
  d.early = d.early && !(early && std::string(early) == "off");
}

}  // namespace

void open_device(int index, size_t memory_limit) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (s.open) {
    require(index < 0 || index == s.device.index, "device_open", "device ", index, " was asked for, device ",
            s.device.index, " is open; a process uses one GPU, so start another process for the other");
    if (memory_limit) set_memory_limit(memory_limit);
    return;
  }
  const std::vector<Description> all = devices();
  if (index < 0) {
    const bool alike = std::all_of(all.begin(), all.end(), [&](const Description& d) {
      return d.name == all[0].name && d.memory == all[0].memory;
    });
    require(alike, "bad_device", "the machine has GPUs of different kinds: ", list_of(all),
            "; name one, as in --device cuda:0");
    index = 0;
  }
  require(index < static_cast<int>(all.size()), "bad_device", "device ", index, " was asked for, there is ",
          list_of(all), "; name one of these, as in --device cuda:0");
  const Description& d = all[static_cast<size_t>(index)];
  require(d.major >= kOldestMajor, "device_unsupported", "device ", text_of(d),
          " is too old, wanted sm_80 (Ampere) or newer; use --device cpu");
  check(cudaSetDevice(index), "cudaSetDevice");
  Device next;
  next.index = index;
  next.major = d.major;
  next.minor = d.minor;
  next.multiprocessors = d.multiprocessors;
  next.shared_per_block = d.shared_per_block;
  next.l2_bytes = d.l2_bytes;
  std::strncpy(next.name, d.name.c_str(), sizeof next.name - 1);
  check(cudaStreamCreateWithFlags(&next.stream, cudaStreamNonBlocking), "cudaStreamCreate");
  void* fault = nullptr;
  check(cudaHostAlloc(&fault, sizeof(Fault), cudaHostAllocMapped | cudaHostAllocPortable), "cudaHostAlloc");
  std::memset(fault, 0, sizeof(Fault));
  next.fault = static_cast<Fault*>(fault);
  look_at_code(next);
  void* arrivals = nullptr;
  check(cudaMalloc(&arrivals, sizeof(unsigned)), "cudaMalloc");
  check(cudaMemsetAsync(arrivals, 0, sizeof(unsigned), next.stream), "cudaMemsetAsync");
  next.arrivals = static_cast<unsigned*>(arrivals);
  s.device = next;
  set_memory_limit(memory_limit);
  s.open.store(true, std::memory_order_release);
}

void close_device() noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (!s.open) return;
  cudaSetDevice(s.device.index);
  cudaStreamSynchronize(s.device.stream);
  release_prefetch();
  forget_device_memory();
  release_staging();
  cudaStreamDestroy(s.device.stream);
  cudaFreeHost(s.device.fault);
  cudaFree(s.device.arrivals);
  s.shared.clear();
  s.open = false;
}

bool device_is_open() noexcept { return state().open; }

Fault* fault() { return device().fault; }

#if defined(TEMPER_CUDA_EMULATION)
void launch_emulated(dim3 grid, dim3 block, size_t shared, std::function<void()> thread) {
  const Turn turn;
  emulation::launch(device().stream, grid, block, shared, std::move(thread));
}
#else
void launch_kernel(const void* kernel, dim3 grid, dim3 block, size_t shared, void** arguments) {
  const Turn turn;
  const Device& d = device();
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared, config.stream = d.stream;
  config.attrs = &early, config.numAttrs = d.early ? 1 : 0;
  check(cudaLaunchKernelExC(&config, kernel, arguments), "kernel launch");
}
#endif

void allow_shared(const void* kernel, size_t bytes) {
  const Device& d = device();
  require(bytes <= static_cast<size_t>(d.shared_per_block), "internal", "a kernel asks for ", bytes,
          " bytes of shared memory, the device has ", d.shared_per_block, " per block");
  State& s = state();
  std::lock_guard lock(s.mutex);
  size_t& allowed = s.shared[kernel];
  if (bytes <= allowed) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
  // The driver may split L1 so that fewer blocks fit than shared memory has room for; it is a hint.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "cudaFuncSetAttribute");
  allowed = bytes;
}

namespace {

[[noreturn]] void raise(const Fault& f) {
  const char *op = f.op.letters, *argument = f.argument.letters;
  switch (static_cast<FaultCode>(f.code)) {
    case FaultCode::bad_index:
      fail("bad_index", op, ": ", argument, "[", f.at, "] is ", f.value, ", wanted 0 to ", f.limit - 1);
    case FaultCode::not_finite: fail("not_finite", op, ": ", argument, "[", f.at, "] is not a finite number");
    case FaultCode::bad_scale:
      fail("bad_scale", op, ": ", argument, "[", f.at, "]: got ", f.value, ", the format's NaN; wanted 0 to 254");
    case FaultCode::no_candidate:
      fail("bad_logits", op, ": row ", f.at,
           " has no finite allowed logit, wanted at least one; check the mask and whether the model's weights are "
           "sound");
    case FaultCode::repeated_row:
      fail("bad_index", op, ": ", argument, "[", f.at, "] is ", f.value, " a second time, wanted distinct rows");
    case FaultCode::bad_number:
      fail("bad_argument", op, ": ", argument, " of row ", f.at, " is ",
           std::bit_cast<float>(static_cast<uint32_t>(f.value)), ", out of its range (see the contract of ", op, ")");
    default: fail("device_error", op, ": a kernel reported fault ", f.code, " at ", argument, "[", f.at, "]");
  }
}

}  // namespace

void synchronize() {
  const Turn turn;
  Device& d = device();
  require(!recording(), "graph_recording",
          "a wait for the device while ops are recorded; read results after the launch");
  check(cudaStreamSynchronize(d.stream), "waiting for the device");
  if (d.fault->code == 0) [[likely]]
    return;
  const Fault found = *d.fault;
  std::memset(static_cast<void*>(d.fault), 0, sizeof(Fault));
  raise(found);
}

}  // namespace temper::gpu
