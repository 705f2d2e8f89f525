// What every part of the simulated device shares.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/Device.h>
#include <torch/version.h>

#include <cstdlib>
#include <string>

#define TORCH_AT_LEAST(major, minor) (TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= (major) * 100 + (minor))

namespace simulated {

constexpr auto kDevice = c10::DeviceType::PrivateUse1;
constexpr int kMostDevices = 64;

inline int64_t environment_number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::strtoll(text, nullptr, 10) : otherwise;
}

inline c10::DeviceIndex device_count() {
  static const auto count = std::clamp<int64_t>(environment_number("SDAA_SIMULATED_DEVICES", 2), 0, kMostDevices);
  return static_cast<c10::DeviceIndex>(count);
}

inline thread_local c10::DeviceIndex current_device = 0;

inline void set_current_device(c10::DeviceIndex index) {
  if (index < 0) return;
  TORCH_CHECK(index < device_count(), "sdaa: invalid device ordinal ", static_cast<int>(index), "; this simulated machine has ",
              static_cast<int>(device_count()), " devices");
  current_device = index;
}

inline c10::DeviceIndex index_or_current(std::optional<c10::Device> device) {
  return device && device->index() >= 0 ? device->index() : current_device;
}

// Makes a device the current one while it lives.
struct OnDevice {
  c10::DeviceIndex before = current_device;
  explicit OnDevice(c10::DeviceIndex index) { set_current_device(index); }
  ~OnDevice() { current_device = before; }
};

}  // namespace simulated
