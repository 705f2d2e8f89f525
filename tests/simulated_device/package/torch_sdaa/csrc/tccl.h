// tccl: the communication backend; every collective is gloo's, on views of the device's bytes.
#pragma once
#include "call.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>

namespace simulated {

class Tccl final : public c10d::Backend {
  using Work = c10::intrusive_ptr<c10d::Work>;
  using List = std::vector<at::Tensor>;
  using Lists = std::vector<List>;

  c10::intrusive_ptr<c10d::Backend> gloo_;

  static at::Tensor host(Call& call, const at::Tensor& tensor) {
    TORCH_CHECK(tensor.device().type() == kDevice, "tccl: expected a tensor on sdaa, got one on ", tensor.device());
    return call.host(tensor);
  }
  static List host(Call& call, const List& tensors) {
    List views;
    for (const auto& tensor : tensors) views.push_back(host(call, tensor));
    return views;
  }
  static Lists host(Call& call, const Lists& lists) {
    Lists views;
    for (const auto& tensors : lists) views.push_back(host(call, tensors));
    return views;
  }

 public:
  explicit Tccl(c10::intrusive_ptr<c10d::Backend> gloo) : Backend(gloo->getRank(), gloo->getSize()), gloo_(std::move(gloo)) {}
  const std::string getBackendName() const override { return "tccl"; }

  Work broadcast(List& tensors, const c10d::BroadcastOptions& options) override {
    Call call("tccl::broadcast");
    auto views = host(call, tensors);
    return gloo_->broadcast(views, options);
  }
  Work allreduce(List& tensors, const c10d::AllreduceOptions& options) override {
    Call call("tccl::allreduce");
    auto views = host(call, tensors);
    // What is scaled here by every rank is a sum that is scaled.
    for (auto& view : views) call.change(view);
    return gloo_->allreduce(views, options);
  }
  Work allreduce_coalesced(List& tensors, const c10d::AllreduceCoalescedOptions& options) override {
    Call call("tccl::allreduce_coalesced");
    auto views = host(call, tensors);
    return gloo_->allreduce_coalesced(views, options);
  }
  Work reduce(List& tensors, const c10d::ReduceOptions& options) override {
    Call call("tccl::reduce");
    auto views = host(call, tensors);
    return gloo_->reduce(views, options);
  }
  Work allgather(Lists& to, List& from, const c10d::AllgatherOptions& options) override {
    Call call("tccl::allgather");
    auto outputs = host(call, to);
    auto inputs = host(call, from);
    return gloo_->allgather(outputs, inputs, options);
  }
  Work _allgather_base(at::Tensor& to, at::Tensor& from, const c10d::AllgatherOptions& options) override {
    Call call("tccl::_allgather_base");
    auto output = host(call, to).view({-1});
    auto input = host(call, from).view({-1});
    return gloo_->_allgather_base(output, input, options);
  }
  Work gather(Lists& to, List& from, const c10d::GatherOptions& options) override {
    Call call("tccl::gather");
    auto outputs = host(call, to);
    auto inputs = host(call, from);
    return gloo_->gather(outputs, inputs, options);
  }
  Work scatter(List& to, Lists& from, const c10d::ScatterOptions& options) override {
    Call call("tccl::scatter");
    auto outputs = host(call, to);
    auto inputs = host(call, from);
    return gloo_->scatter(outputs, inputs, options);
  }
  Work reduce_scatter(List& to, Lists& from, const c10d::ReduceScatterOptions& options) override {
    Call call("tccl::reduce_scatter");
    auto outputs = host(call, to);
    auto inputs = host(call, from);
    return gloo_->reduce_scatter(outputs, inputs, options);
  }
  Work alltoall_base(at::Tensor& to, at::Tensor& from, std::vector<int64_t>& to_sizes, std::vector<int64_t>& from_sizes,
                     const c10d::AllToAllOptions& options) override {
    Call call("tccl::alltoall_base");
    auto output = host(call, to);
    auto input = host(call, from);
    return gloo_->alltoall_base(output, input, to_sizes, from_sizes, options);
  }
  Work send(List& tensors, int to, int tag) override {
    Call call("tccl::send");
    auto views = host(call, tensors);
    return gloo_->send(views, to, tag);
  }
  Work recv(List& tensors, int from, int tag) override {
    Call call("tccl::recv");
    auto views = host(call, tensors);
    return gloo_->recv(views, from, tag);
  }
  Work barrier(const c10d::BarrierOptions& options) override {
    Call call("tccl::barrier");
    return gloo_->barrier(options);
  }
};

}  // namespace simulated
