#include "05_tensor_parallel/pieces.h"

namespace ninefold {
namespace {

// The neighbours of a rank in the ring.
struct Ring {
  explicit Ring(const Group& group)
      : size(group.size()), rank(group.rank()), next((rank + 1) % size), before((rank + size - 1) % size) {}
  // The piece that lies so many places before this rank's own.
  int piece(int places) const { return (rank + 2 * size - places) % size; }
  int size, rank, next, before;
};

}  // namespace

// In round s a rank has the piece s places before its own: it passes it on, and computes with it while the next
// arrives.
void gather_in_pieces(const Group& group, const Tensor& whole, const Tensor& own,
                      const std::function<void(int64_t, int64_t)>& compute) {
  const Ring ring(group);
  const int64_t rows = own.dim(0);
  const auto place = [&](int piece) { return whole.rows(piece * rows, (piece + 1) * rows); };
  ops::copy_(place(ring.rank), own);
  for (int round = 0; round < ring.size; ++round) {
    const int here = ring.piece(round);
    Pending arriving, leaving;
    if (round + 1 < ring.size) {
      arriving = group.start_recv(place(ring.piece(round + 1)), ring.before);
      leaving = group.start_send(place(here), ring.next);
    }
    compute(here * rows, (here + 1) * rows);
    arriving.wait();
    leaving.wait();
  }
}

// In round s a rank computes its term of the piece s + 1 places before its own, adds what the ranks before have summed
// of it, and passes it on. While a sum travels the next term is computed; never more than three pieces are there.
Tensor reduce_in_pieces(const Group& group, int64_t rows, const std::function<Tensor(int64_t, int64_t)>& compute) {
  const Ring ring(group);
  const int64_t width = rows / ring.size;
  Tensor arrived;
  Pending arriving, leaving;
  for (int round = 0; round + 1 < ring.size; ++round) {
    const int piece = ring.piece(round + 1);
    const Tensor term = compute(piece * width, (piece + 1) * width);
    arriving.wait();
    if (arrived.defined()) ops::add_(term, arrived);
    arrived = Tensor();
    leaving.wait();
    arrived = Tensor::empty(term.device(), {width, term.dim(1)}, term.dtype());
    arriving = group.start_recv(arrived, ring.before);
    leaving = group.start_send(term, ring.next);
  }
  const Tensor own = compute(ring.rank * width, (ring.rank + 1) * width);
  arriving.wait();
  leaving.wait();
  return ops::add(own, arrived);
}

Tensor gather_and_multiply(const Group& group, const Tensor& own, const Tensor& b, ops::MatmulOptions options,
                           Tensor& whole) {
  whole = Tensor::empty(own.device(), {own.dim(0) * group.size(), own.dim(1)}, own.dtype());
  Tensor y = Tensor::empty(own.device(), {whole.dim(0), b.dim(options.transpose_b ? 0 : 1)}, own.dtype());
  gather_in_pieces(group, whole, own, [&](int64_t begin, int64_t end) {
    ops::matmul_into(y.rows(begin, end), whole.rows(begin, end), b, options);
  });
  return y;
}

Tensor multiply_and_reduce(const Group& group, const Tensor& a, const Tensor& b, ops::MatmulOptions options) {
  return reduce_in_pieces(group, a.dim(0),
                          [&](int64_t begin, int64_t end) { return ops::matmul(a.rows(begin, end), b, options); });
}

}  // namespace ninefold
