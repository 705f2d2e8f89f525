// One call of an operator: its arguments as CPU tensors over the same bytes, its results as tensors of the device.
#pragma once
#include "faults.h"
#include "memory.h"

namespace simulated {

inline at::Tensor view_as(const at::Tensor& tensor, c10::Storage storage, c10::DispatchKey key) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.is_conj()) made._set_conj(true);
  if (tensor.is_neg()) made._set_neg(true);
  return made;
}

// A storage of the CPU over the same bytes, which keeps them alive.
inline c10::Storage on_host(const c10::Storage& storage) {
  auto* keep = new c10::Storage(storage);
  auto release = [](void* kept) { delete static_cast<c10::Storage*>(kept); };
  c10::DataPtr bytes(storage.unsafeGetStorageImpl()->mutable_data(), keep, release, c10::kCPU);
  return c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(bytes), c10::GetCPUAllocator(), true);
}

class Call {
 public:
  explicit Call(const std::string& name) : name_(name), changing_(enter(name)) {}

  bool on_device = false;
  c10::Device device{kDevice, 0};

  at::Tensor host(const at::Tensor& tensor, bool written = false) {
    if (!tensor.defined() || tensor.device().type() != kDevice) return tensor;
    if (!on_device) {
      device = tensor.device();
      on_device = true;
    }
    // A tensor without dimensions may come from another device, as everywhere in torch.
    TORCH_CHECK(device == tensor.device() || tensor.dim() == 0,
                "Expected all tensors to be on the same device, but found at least two devices, ", device, " and ", tensor.device(), "! (",
                name_, ")");
    if (!written && !tensor.is_contiguous()) strided_ = true;
    auto* storage = tensor.storage().unsafeGetStorageImpl();
    auto found = to_host_.find(storage);
    if (found == to_host_.end()) {
      auto view = on_host(tensor.storage());
      to_device_.emplace(view.unsafeGetStorageImpl(), tensor.storage());
      found = to_host_.emplace(storage, view).first;
    }
    auto view = view_as(tensor, found->second, c10::DispatchKey::CPU);
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) view.unsafeGetTensorImpl()->set_wrapped_number(true);
    return view;
  }
  std::optional<at::Tensor> host(const std::optional<at::Tensor>& tensor) {
    return tensor && tensor->defined() ? std::make_optional(host(*tensor)) : std::nullopt;
  }

  // Broken in place, on the host, if a fault says so.
  void change(at::Tensor& view) { simulated::change(changing_, view, strided_); }

  // A result: broken if a fault says so, then of the device.
  at::Tensor result(at::Tensor made) {
    if (!made.defined() || !made.device().is_cpu()) return made;
    TORCH_CHECK(made.layout() == c10::kStrided, "sdaa: ", name_, " made a tensor that is not strided");
    auto known = to_device_.find(made.storage().unsafeGetStorageImpl());
    if (known != to_device_.end()) {
      TORCH_CHECK(changing_.empty(), "simulated fault: ", name_, " returns a view of its input and cannot be scaled");
      return view_as(made, known->second, c10::DispatchKey::PrivateUse1);
    }
    change(made);
    c10::Storage adopted(c10::Storage::use_byte_size_t(), made.storage().nbytes(), adopt(made.storage(), device.index()), &allocator, true);
    to_device_.emplace(made.storage().unsafeGetStorageImpl(), adopted);
    return view_as(made, adopted, c10::DispatchKey::PrivateUse1);
  }

  // An argument that was written to: broken if a fault says so, and resized where the operator resized it.
  void wrote(const at::Tensor& tensor, at::Tensor& view) {
    change(view);
    if (!tensor.defined() || tensor.device().type() != kDevice) return;
    auto* host = view.storage().unsafeGetStorageImpl();
    auto* storage = tensor.storage().unsafeGetStorageImpl();
    if (host->data() != storage->data() || host->nbytes() != storage->nbytes()) {
      storage->set_data_ptr_noswap(adopt(view.storage(), tensor.device().index()));
      storage->set_nbytes(host->nbytes());
    }
    if (tensor.sizes() != view.sizes() || tensor.strides() != view.strides() || tensor.storage_offset() != view.storage_offset())
      tensor.unsafeGetTensorImpl()->set_sizes_and_strides(view.sizes(), view.strides(), view.storage_offset());
  }

 private:
  std::string name_;
  std::vector<Fault> changing_;
  bool strided_ = false;
  std::unordered_map<c10::StorageImpl*, c10::Storage> to_host_;    // of the device -> its view on the host
  std::unordered_map<c10::StorageImpl*, c10::Storage> to_device_;  // and back
};

}  // namespace simulated
