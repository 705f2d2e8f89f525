// Runtime: devices, streams, events, random numbers; everything is synchronous, as host memory is.
#pragma once
#include "memory.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/GeneratorForPrivateuseone.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>

namespace simulated {

struct Guard final : c10::impl::DeviceGuardImplInterface {
  using Clock = std::chrono::steady_clock;
  c10::DeviceType type() const override { return kDevice; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = current_device;
    setDevice(device);
    return {kDevice, before};
  }
  c10::Device getDevice() const override { return {kDevice, current_device}; }
  void setDevice(c10::Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) current_device = device.index();
  }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kDevice, index_or_current(device)));
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getStream(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return getStream(stream.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (!*event) *event = new Clock::time_point;
    *static_cast<Clock::time_point*>(*event) = Clock::now();
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Clock::time_point*>(event);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  // torch before 2.5 has no such members to override.
  void synchronizeEvent(void*) const {}
  void synchronizeDevice(const c10::DeviceIndex) const {}
  double elapsedTime(void* from, void* to, const c10::DeviceIndex) const {
    return std::chrono::duration<double, std::milli>(*static_cast<Clock::time_point*>(to) - *static_cast<Clock::time_point*>(from))
        .count();
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// The CPU's generator under the device's name: the same seed draws the same numbers as on the CPU.
struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(c10::DeviceIndex index) {
    device_ = c10::Device(kDevice, index);
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }
};

inline at::Generator make_generator(c10::DeviceIndex index) {
  return at::make_generator<Generator>(index < 0 ? current_device : index);
}

inline const at::Generator& default_generator(c10::DeviceIndex index) {
  static auto* generators = [] {
    auto* made = new std::vector<at::Generator>;
    for (int at = 0; at < device_count(); at++) made->push_back(make_generator(at));
    return made;
  }();
  if (index < 0) index = current_device;
  TORCH_CHECK(index < device_count(), "sdaa: invalid device ordinal ", static_cast<int>(index));
  return (*generators)[index];
}
#if !TORCH_AT_LEAST(2, 7)
REGISTER_GENERATOR_PRIVATEUSE1(make_generator)
#endif

// SDAA_SIMULATED_RNG=cpu: what names no generator draws from the CPU's, so that dropout masks are those of the CPU.
inline bool draws_on_device() {
  static const bool on_device = [] {
    const char* text = std::getenv("SDAA_SIMULATED_RNG");
    return !(text && std::string(text) == "cpu");
  }();
  return on_device;
}

inline void copy_state(const at::CPUGeneratorImpl& from, at::CPUGeneratorImpl& to) {
  auto& source = const_cast<at::CPUGeneratorImpl&>(from);
  to.set_engine(source.engine());
  to.set_next_float_normal_sample(source.next_float_normal_sample());
  to.set_next_double_normal_sample(source.next_double_normal_sample());
}

#if TORCH_AT_LEAST(2, 5)
#define HOOK_CONST const
#else
#define HOOK_CONST
#endif
// Without `override`, for the set of members differs between the versions of torch.
struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const { return true; }
  bool isAvailable() const { return device_count() > 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) HOOK_CONST { return default_generator(index); }
  at::Generator getNewGenerator(c10::DeviceIndex index) const { return make_generator(index); }
  at::Device getDeviceFromPtr(void*) const { return {kDevice, current_device}; }
  bool isPinnedPtr(const void* pointer) const { return is_pinned(pointer); }
  at::Allocator* getPinnedMemoryAllocator() const { return &pinned_allocator; }
  bool hasPrimaryContext(c10::DeviceIndex) const { return true; }
  void init() const {}
  c10::DeviceIndex deviceCount() const { return device_count(); }
  void setCurrentDevice(c10::DeviceIndex index) const { set_current_device(index); }
  c10::DeviceIndex getCurrentDevice() const { return current_device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const { return Guard().exchangeDevice({kDevice, index}).index(); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const { return exchangeDevice(index); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const {
    auto* impl = storage.unsafeGetStorageImpl();
    OnDevice here(storage.device().index());
    auto fresh = allocator.allocate(bytes);
    if (bytes && impl->nbytes()) std::memcpy(fresh.get(), impl->data(), std::min(bytes, impl->nbytes()));
    impl->set_data_ptr_noswap(std::move(fresh));
    impl->set_nbytes(bytes);
  }
};

}  // namespace simulated
