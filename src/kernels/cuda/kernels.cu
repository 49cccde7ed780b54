// The kernels of the fast path on a GPU, compiled at run time (NVRTC) for the GPU at
// hand.
//
// Every sum is taken in a fixed order: threads of a block add in a tree, and no kernel
// adds atomically. The same input gives the same bits at every run on one kind of GPU.
//
// Matrices are stored row by row. `stride` is the distance between rows.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// NVRTC has no header for these.
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif

#define WARP 32
#define ROWS_AT_ONCE 1024

// ---- sums within a block -------------------------------------------------------------

template <typename T>
__device__ T block_sum(T value) {
    __shared__ T sums[WARP];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int step = WARP / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(~0u, value, step);
    __syncthreads();
    if (lane == 0) sums[warp] = value;
    __syncthreads();
    value = lane < (blockDim.x + WARP - 1) / WARP ? sums[lane] : T(0);
    for (int step = WARP / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(~0u, value, step);
    return value;
}

__device__ float block_max(float value) {
    __shared__ float maxima[WARP];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int step = WARP / 2; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
    __syncthreads();
    if (lane == 0) maxima[warp] = value;
    __syncthreads();
    value = lane < (blockDim.x + WARP - 1) / WARP ? maxima[lane] : -INFINITY;
    for (int step = WARP / 2; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
    return value;
}

// Four numbers of a row from column `at` on, summed after squaring.
__device__ float squares(const float* row, u32 width, u32 threads, u32 thread) {
    float sum = 0;
    if (width % 4 == 0 && (u64)row % 16 == 0) {
        const float4* quads = (const float4*)row;
        for (u32 at = thread; at < width / 4; at += threads) {
            const float4 x = quads[at];
            sum += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
        }
    } else {
        for (u32 at = thread; at < width; at += threads) sum += row[at] * row[at];
    }
    return sum;
}

// NaN stays NaN: it must not look like a unit that is not active.
__device__ float relu(float x) { return x < 0.f ? 0.f : x; }

// ---- products ------------------------------------------------------------------------

// Rows of numbers, rounded to bfloat16 (to the nearest, of two to the even one). A block
// for each row and 1024 columns.
extern "C" __global__ void to_bf16(const float* x, u16* out, u32 width, u64 stride,
                                   u64 out_stride) {
    const float* row = x + blockIdx.x * stride;
    u16* to = out + blockIdx.x * out_stride;
    for (u32 part = 0; part < 4; ++part) {
        const u32 at = blockIdx.y * 1024 + part * 256 + threadIdx.x;
        if (at >= width) return;
        const u32 bits = __float_as_uint(row[at]);
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        to[at] = is_nan ? 0x7fff : (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
}

// ---- a linear map of parts -----------------------------------------------------------

// What one part adds to the rows of an output: a product, or rows of the weight that are
// picked by one-hot slots.
struct Term {
    const float* values;  // the product, or the rows of the weight
    const u32* index;     // null for a product
    const float* scale;   // a factor for each row of the output, or null
    u32 rows;  // of the product or the index; the rows of the output repeat them
    u32 slots;
    u32 classes;
    float strength;
};

struct Terms {
    Term term[8];
    u32 count;
};

// out[r] (+)= Σ terms, + bias, ReLU. A block for each row and 1024 columns.
extern "C" __global__ void affine(
    Terms terms, float* out, const float* bias, u32 units, u32 relu_too, u32 add) {
    const u32 row = blockIdx.x;
    for (u32 part = 0; part < 4; ++part) {
        const u32 unit = blockIdx.y * 1024 + part * 256 + threadIdx.x;
        if (unit >= units) return;
        float* place = out + (u64)row * units + unit;
        float sum = add ? *place : 0.f;
        for (u32 t = 0; t < terms.count; ++t) {
            const Term& term = terms.term[t];
            const float scale = term.scale ? term.scale[row] : 1.f;
            const u32 of_row = row % term.rows;
            if (!term.index) {
                sum += scale * term.values[(u64)of_row * units + unit];
                continue;
            }
            float picked = 0.f;
            for (u32 slot = 0; slot < term.slots; ++slot) {
                const u32 class_ = term.index[of_row * term.slots + slot];
                // An index that does not exist makes the row NaN, which ends the run.
                picked +=
                    class_ < term.classes
                        ? term.values[((u64)slot * term.classes + class_) * units + unit]
                        : NAN;
            }
            sum += scale * term.strength * picked;
        }
        if (bias) sum += bias[unit];
        *place = relu_too ? relu(sum) : sum;
    }
}

// ---- rows ----------------------------------------------------------------------------

struct Squares {
    const float* values;  // null for one-hot slots or zeros
    const float* scale;   // or null
    u32 rows;
    u32 width;
    u32 stride;
    float constant;  // the sum of the squares, without values
};

struct AllSquares {
    Squares part[8];
    u32 count;
};

// factor[r] = length / max(‖x[r]‖, shortest), over all parts. A block for each row.
extern "C" __global__ void row_factors(
    AllSquares parts, float* factor, float length, float shortest) {
    const u32 row = blockIdx.x;
    float sum = 0.f;
    for (u32 p = 0; p < parts.count; ++p) {
        const Squares& part = parts.part[p];
        const float scale = part.scale ? part.scale[row] : 1.f;
        const float all =
            part.values ? squares(part.values + (u64)(row % part.rows) * part.stride,
                              part.width, blockDim.x, threadIdx.x)
            : threadIdx.x == 0 ? part.constant
                               : 0.f;
        sum += scale * scale * all;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        const float norm = sqrtf(sum);
        // Not `fmaxf`, which would hide NaN.
        factor[row] = length / (norm < shortest ? shortest : norm);
    }
}

// out[r] = x[r]·length / max(‖x[r]‖, shortest). A block for each row.
extern "C" __global__ void unit_rows(
    const float* x, float* out, u32 width, u32 stride, float length, float shortest) {
    const float* row = x + (u64)blockIdx.x * stride;
    const float norm = sqrtf(block_sum(squares(row, width, blockDim.x, threadIdx.x)));
    const float by = length / (norm < shortest ? shortest : norm);
    float* place = out + (u64)blockIdx.x * width;
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) place[at] = by * row[at];
}

// out[r] = Σ x[r]². A block for each row.
extern "C" __global__ void row_squares(
    const float* x, float* out, u32 width, u32 stride) {
    const float sum =
        block_sum(squares(x + (u64)blockIdx.x * stride, width, blockDim.x, threadIdx.x));
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// out[r] = times·factor[r]·x[r].
extern "C" __global__ void scale_rows(
    const float* x, const float* factor, float* out, u32 width, u32 stride, float times) {
    const u32 row = blockIdx.x;
    const float by = times * factor[row];
    for (u32 part = 0; part < 4; ++part) {
        const u32 at = blockIdx.y * 1024 + part * 256 + threadIdx.x;
        if (at < width) out[(u64)row * width + at] = by * x[(u64)row * stride + at];
    }
}

// out[b] = Σ over views of factor[v·B + b]·x[v·B + b].
extern "C" __global__ void sum_views(const float* x, const float* factor, float* out,
    u32 width, u32 stride, u32 batch, u32 views) {
    const u32 row = blockIdx.x;
    for (u32 part = 0; part < 4; ++part) {
        const u32 at = blockIdx.y * 1024 + part * 256 + threadIdx.x;
        if (at >= width) return;
        float sum = 0.f;
        for (u32 view = 0; view < views; ++view) {
            const u64 of_view = (u64)view * batch + row;
            sum += (factor ? factor[of_view] : 1.f) * x[of_view * stride + at];
        }
        out[(u64)row * width + at] = sum;
    }
}

// out[c, n] = factor·Σ x[r, n] over the rows of piece c. Blocks of 32 columns and 32
// rows.
extern "C" __global__ void column_sums(const float* x, float* out, u32 rows, u32 width,
    u32 stride, u32 piece, float factor) {
    __shared__ float sums[32][33];
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    const u32 first = blockIdx.y * piece, last = min(rows, first + piece);
    float sum = 0.f;
    if (column < width) {
        for (u32 row = first + threadIdx.y; row < last; row += 32)
            sum += x[(u64)row * stride + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    float all = sums[threadIdx.x][threadIdx.y];
    for (int step = 16; step > 0; step /= 2) all += __shfl_xor_sync(~0u, all, step);
    const u32 of_warp = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && of_warp < width)
        out[(u64)blockIdx.y * width + of_warp] = factor * all;
}

// ---- element by element --------------------------------------------------------------

// out = gain·gradient where the activity is positive, gain·slope·gradient where it is
// negative, else 0; plus `common` in the first rows.
extern "C" __global__ void gate(const float* gradient, const float* activity, float* out,
    float gain, float slope, const float* common, u64 of_common, u32 units, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    float value = 0.f;
    if (activity[at] > 0.f)
        value = gain * gradient[at];
    else if (activity[at] < 0.f && slope != 0.f)
        value = gain * slope * gradient[at];
    if (at < of_common) value += common[at % units];
    out[at] = value;
}

// out = keep·old + fresh·new; `old` is repeated.
extern "C" __global__ void blend(const float* old, const float* young, float* out,
    float keep, float fresh, u64 of_old, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) out[at] = keep * old[at % of_old] + fresh * young[at];
}

// x = factor·x.
extern "C" __global__ void scale(float* x, float factor, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) x[at] = factor == 0.f ? 0.f : factor * x[at];
}

// sum = sum + factor·x.
extern "C" __global__ void add_to(float* sum, const float* x, float factor, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) sum[at] += factor * x[at];
}

// Philox with 4×32 bits and 10 rounds (Salmon et al. 2011): four numbers for a counter.
__device__ uint4 philox(u64 counter, u64 key) {
    uint4 c = make_uint4((u32)counter, (u32)(counter >> 32), 0u, 0u);
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        const u32 high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// Zeroes each number with probability threshold / 2³², and multiplies the others by gain.
extern "C" __global__ void dropout(
    const float* x, float* out, u64 key, u32 threshold, float gain, u64 count) {
    const u64 quad = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (quad * 4 >= count) return;
    const uint4 drawn = philox(quad, key);
    const u32 numbers[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    for (u32 i = 0; i < 4 && quad * 4 + i < count; ++i) {
        out[quad * 4 + i] = numbers[i] < threshold ? 0.f : gain * x[quad * 4 + i];
    }
}

// ---- updates -------------------------------------------------------------------------

// v = keep·v + new·g (without g: v as it is), w = shrink·w − rate·v.
extern "C" __global__ void sgd(float* w, float* v, const float* g, float keep,
    float fresh, float rate, float shrink, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    float velocity = v[at];
    if (g) v[at] = velocity = keep * velocity + fresh * g[at];
    w[at] = shrink * w[at] - rate * velocity;
}

// The step of a bias, whose gradient is the sum of the rows of delta. Blocks of 32
// columns.
extern "C" __global__ void sgd_columns(float* w, float* v, const float* delta, u32 rows,
    u32 width, u32 stride, float keep, float fresh, float rate, float shrink) {
    __shared__ float sums[32][33];
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (column < width) {
        for (u32 row = threadIdx.y; row < rows; row += 32)
            sum += delta[(u64)row * stride + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    float all = sums[threadIdx.x][threadIdx.y];
    for (int step = 16; step > 0; step /= 2) all += __shfl_xor_sync(~0u, all, step);
    const u32 of_warp = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && of_warp < width) {
        const float velocity = v[of_warp] = keep * v[of_warp] + fresh * all;
        w[of_warp] = shrink * w[of_warp] - rate * velocity;
    }
}

extern "C" __global__ void adam(float* w, float* m, float* v, const float* g, float keep1,
    float fresh1, float keep2, float fresh2, float rate, float root, float epsilon,
    float shrink, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const float gradient = g[at];
    const float first = m[at] = keep1 * m[at] + fresh1 * gradient;
    const float second = v[at] = keep2 * v[at] + fresh2 * gradient * gradient;
    w[at] = shrink * w[at] - rate * first / (sqrtf(second) / root + epsilon);
}

// table[slot·classes + class] = keep·table + factor·Σ delta[r] over the rows r that have
// this class in this slot, in the order of the rows. A block for each place and 256
// units.
extern "C" __global__ void scatter(float* table, const u32* index, const float* delta,
    float keep, float factor, u32 rows, u32 slots, u32 classes, u32 units, u32 stride) {
    __shared__ u32 found[ROWS_AT_ONCE];
    __shared__ u32 of_warp[WARP];
    __shared__ u32 count;
    const u32 slot = blockIdx.x / classes, wanted = blockIdx.x % classes;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP,
              warps = blockDim.x / WARP;
    const u32 unit = blockIdx.y * blockDim.x + threadIdx.x;
    float* place = table + (u64)blockIdx.x * units + unit;
    float sum = 0.f;
    for (u32 first = 0; first < rows; first += ROWS_AT_ONCE) {
        if (threadIdx.x == 0) count = 0;
        __syncthreads();
        for (u32 base = first; base < min(rows, first + ROWS_AT_ONCE);
            base += blockDim.x) {
            const u32 row = base + threadIdx.x;
            const bool met = row < min(rows, first + ROWS_AT_ONCE) &&
                             index[row * slots + slot] == wanted;
            const u32 votes = __ballot_sync(~0u, met);
            if (lane == 0) of_warp[warp] = __popc(votes);
            __syncthreads();
            u32 before = count;
            for (u32 other = 0; other < warp; ++other) before += of_warp[other];
            if (met) found[before + __popc(votes & ((1u << lane) - 1))] = row;
            __syncthreads();
            if (threadIdx.x == 0) {
                for (u32 other = 0; other < warps; ++other) count += of_warp[other];
            }
            __syncthreads();
        }
        if (unit < units) {
            u32 i = 0;
            for (; i + 4 <= count; i += 4) {
                float four[4];
                for (u32 j = 0; j < 4; ++j)
                    four[j] = delta[(u64)found[i + j] * stride + unit];
                sum += (four[0] + four[1]) + (four[2] + four[3]);
            }
            for (; i < count; ++i) sum += delta[(u64)found[i] * stride + unit];
        }
        __syncthreads();
    }
    if (unit < units) *place = (keep == 0.f ? 0.f : keep * *place) + factor * sum;
}

// Peer normalisation of `units` units, in one block: the running means move to the means
// of this step, and excess = factor·(means − their mean).
extern "C" __global__ void peer(float* means, const float* now, float* excess,
    float momentum, float factor, u32 units) {
    double sum = 0;
    for (u32 unit = threadIdx.x; unit < units; unit += blockDim.x) {
        const float mean = momentum * means[unit] + (1.f - momentum) * now[unit];
        means[unit] = mean;
        sum += mean;
    }
    const float all = block_sum(sum) / units;
    for (u32 unit = threadIdx.x; unit < units; unit += blockDim.x)
        excess[unit] = factor * (means[unit] - all);
}

// ---- losses --------------------------------------------------------------------------

__device__ double softplus(double x) { return fmax(x, 0.) + log1p(exp(-fabs(x))); }
__device__ double sigmoid(double x) { return 1. / (1. + exp(-x)); }

// A loss that sets the goodness of views against a threshold (logistic, log_sigmoid,
// unbounded: kinds 0, 1, 2) or the two views of an example against each other (symmetric:
// 3). The first `positive` views are the positive ones. One block.
extern "C" __global__ void contrast(const float* goodness, const float* offset,
    float* gradient, double* total_loss, u32 batch, u32 views, u32 positive, double theta,
    double temperature, u32 kind) {
    double loss = 0;
    const u32 rows = batch * views;
    for (u32 row = threadIdx.x; row < rows; row += blockDim.x) {
        const bool up = row / batch < positive;
        const double g = goodness[row];
        const double shifted = g + (offset ? offset[row] : 0.f);
        if (kind == 3) {
            const u32 other = up ? row + batch : row - batch;
            const double against =
                (double)goodness[other] + (offset ? offset[other] : 0.f);
            const double down =
                (up ? against - shifted : shifted - against) / temperature;
            if (up) loss += 0.5 * temperature * softplus(down);
            gradient[row] = (up ? -0.5 : 0.5) * sigmoid(down) / batch;
            continue;
        }
        const double z = (shifted - theta) / temperature;
        double value, slope;
        if (kind == 2) {
            value = up ? -z : z;
            slope = up ? -1 : 1;
        } else if (up) {
            value = softplus(-z);
            slope = -sigmoid(-z);
        } else if (kind == 1) {
            value = -softplus(-z);
            slope = sigmoid(-z);
        } else {
            value = softplus(z);
            slope = sigmoid(z);
        }
        loss += 0.5 * temperature * value;
        gradient[row] = 0.5 * slope / batch;
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0) *total_loss = loss / batch;
}

// log softmax of each row. A block for each row.
extern "C" __global__ void log_softmax(const float* x, float* out, u32 width) {
    const float* row = x + (u64)blockIdx.x * width;
    float top = -INFINITY;
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) top = fmaxf(top, row[at]);
    top = block_max(top);
    float sum = 0.f;
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) sum += expf(row[at] - top);
    const float log = logf(block_sum(sum));
    for (u32 at = threadIdx.x; at < width; at += blockDim.x)
        out[(u64)blockIdx.x * width + at] = row[at] - top - log;
}

// The gradient of the mean cross-entropy with respect to the logits.
extern "C" __global__ void cross_entropy(const float* log, const u32* labels,
    float* gradient, u32 width, float mean, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const float hit = at % width == labels[at / width] ? 1.f : 0.f;
    gradient[at] = mean * (expf(log[at]) - hit);
}

// The mean cross-entropy. One block.
extern "C" __global__ void cross_entropy_loss(
    const float* log, const u32* labels, double* loss, u32 width, u32 rows) {
    double sum = 0;
    for (u32 row = threadIdx.x; row < rows; row += blockDim.x)
        sum -= log[(u64)row * width + labels[row]];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = sum / rows;
}

// The sum of the means of `count` lists of numbers, with their weights. One block.
struct Numbers {
    const void* numbers[64];
    double weight[64];
    u32 length[64];
    u64 is_double;  // a bit for each
    u32 count;
};

extern "C" __global__ void total(Numbers lists, double* out) {
    double all = 0;
    for (u32 i = 0; i < lists.count; ++i) {
        const void* numbers = lists.numbers[i];
        const bool is_double = lists.is_double >> i & 1;
        double sum = 0;
        for (u32 at = threadIdx.x; at < lists.length[i]; at += blockDim.x) {
            sum += is_double ? ((const double*)numbers)[at] : ((const float*)numbers)[at];
        }
        all += lists.weight[i] * block_sum(sum) / lists.length[i];
    }
    if (threadIdx.x == 0) *out = all;
}

// ---- views ---------------------------------------------------------------------------

// Labels, and after them a wrong class for each, drawn in proportion to its probability
// with a uniform number in [0, 1).
extern "C" __global__ void with_wrong(const float* log, const u32* labels,
    const double* draws, u32* out, u32 rows, u32 classes) {
    const u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const u32 label = labels[row];
    const float* mine = log + (u64)row * classes;
    double top = -INFINITY;
    for (u32 c = 0; c < classes; ++c) {
        if (c != label) top = fmax(top, (double)mine[c]);
    }
    double left = 0;
    for (u32 c = 0; c < classes; ++c) {
        if (c != label) left += exp(mine[c] - top);
    }
    left *= draws[row];
    // Rounding can leave a rest: the last of the likeliest classes gets it.
    u32 wrong = 0;
    for (u32 c = 0; c < classes; ++c) {
        if (c != label && mine[c] >= top) wrong = c;
    }
    for (u32 c = 0; c < classes; ++c) {
        if (c == label) continue;
        left -= exp(mine[c] - top);
        if (left < 0) {
            wrong = c;
            break;
        }
    }
    out[row] = label;
    out[rows + row] = wrong;
}

// Images at `index` from bytes, moved down and right, mirrored, and divided by 255.
extern "C" __global__ void images(const u8* pixels, const u32* index, const int* moves,
    float* out, u32 channels, u32 height, u32 width, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const u32 size = channels * height * width;
    const u32 image = at / size, place = at % size;
    const u32 plane = place / (height * width);
    int row = place / width % height, column = place % width;
    if (moves) {
        const int* move = moves + 3 * image;
        if (move[2]) column = width - 1 - column;
        row -= move[0];
        column -= move[1];
    }
    float value = 0.f;
    if (row >= 0 && row < (int)height && column >= 0 && column < (int)width) {
        value =
            pixels[(u64)index[image] * size + (plane * height + row) * width + column] /
            255.f;
    }
    out[at] = value;
}

// out = (x − mean) / deviation for each channel of images.
extern "C" __global__ void standardise(const float* x, const float* mean,
    const float* deviation, float* out, u32 channels, u32 plane, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const u32 channel = at / plane % channels;
    out[at] = (x[at] - mean[channel]) / deviation[channel];
}

// ---- images --------------------------------------------------------------------------

// The field around each pixel of some images, a row for each of its numbers:
// fields[(c·K + y)·K + x, image·H·W + pixel]. A block for 256 pixels of a row.
extern "C" __global__ void fields(const float* images, float* out, u32 count,
    u32 channels, u32 height, u32 width, u32 field) {
    const u32 plane = height * width, pixels = count * plane;
    const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= pixels) return;
    const u32 image = at / plane, row = at % plane / width, column = at % width;
    for (u32 number = blockIdx.y; number < channels * field * field;
        number += gridDim.y) {
        const u32 channel = number / (field * field), place = number % (field * field);
        const int y = (int)(row + place / field) - (int)(field / 2),
                  x = (int)(column + place % field) - (int)(field / 2);
        float value = 0.f;
        if (y >= 0 && y < (int)height && x >= 0 && x < (int)width) {
            value = images[((u64)image * channels + channel) * plane + y * width + x];
        }
        out[(u64)number * pixels + at] = value;
    }
}

// The maxima of pools of a tile (N, images·H·W): out (images, N, H/P, W/P), and which of
// the P·P pixels was the largest.
extern "C" __global__ void pool(const float* tile, float* out, u8* choice, u32 count,
    u32 units, u32 height, u32 width, u32 size) {
    const u32 down = height / size, across = width / size, plane = height * width;
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (u64)count * units * down * across) return;
    const u32 column = at % across, row = at / across % down,
              unit = at / (across * down) % units;
    const u64 image = at / ((u64)across * down * units);
    const float* pixels =
        tile + ((u64)unit * count + image) * plane + row * size * width + column * size;
    float best = -INFINITY;
    u32 best_at = 0;
    for (u32 i = 0; i < size * size; ++i) {
        const float value = pixels[i / size * width + i % size];
        // NaN wins, so that it is detected later.
        if (value > best || value != value) {
            best = value;
            best_at = i;
        }
    }
    out[at] = best;
    if (choice) choice[at] = best_at;
}

// The reverse: each gradient at the pixel that was the largest, zero elsewhere.
extern "C" __global__ void spread(const float* delta, const u8* choice, float* tile,
    u32 count, u32 units, u32 height, u32 width, u32 size) {
    const u32 down = height / size, across = width / size, plane = height * width;
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (u64)count * units * plane) return;
    const u32 pixel = at % plane, y = pixel / width, x = pixel % width;
    const u64 image = at / plane % count, unit = at / ((u64)plane * count);
    float value = 0.f;
    if (y / size < down && x / size < across) {
        const u64 place = ((image * units + unit) * down + y / size) * across + x / size;
        if (!choice || choice[place] == y % size * size + x % size) value = delta[place];
    }
    tile[at] = value;
}

// Sums over a group of planes: those of a row, or those of a channel.
struct Planes {
    u32 rows;
    u32 channels;
    u32 size;
    u32 by_row;
};

__device__ u64 place_in(const Planes& p, u32 group, u32 at) {
    const u32 member = at / p.size, inside = at % p.size;
    const u64 plane =
        p.by_row ? (u64)group * p.channels + member : (u64)member * p.channels + group;
    return plane * p.size + inside;
}

__device__ u32 members(const Planes& p) {
    return (p.by_row ? p.channels : p.rows) * p.size;
}

__device__ u32 group_of(const Planes& p, u64 at) {
    const u64 plane = at / p.size;
    return p.by_row ? plane / p.channels : plane % p.channels;
}

// Mean and variance of each group. A block for each.
extern "C" __global__ void moments(
    const float* x, float* mean, float* variance, Planes planes) {
    const u32 count = members(planes);
    double sum = 0;
    for (u32 at = threadIdx.x; at < count; at += blockDim.x)
        sum += x[place_in(planes, blockIdx.x, at)];
    const float middle = block_sum(sum) / count;
    float squares = 0.f;
    for (u32 at = threadIdx.x; at < count; at += blockDim.x) {
        const float off = x[place_in(planes, blockIdx.x, at)] - middle;
        squares += off * off;
    }
    const double all = block_sum((double)squares);
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = middle;
        variance[blockIdx.x] = all / count;
    }
}

// The sum of each group, or with x the means of delta and of n·delta. A block for each.
extern "C" __global__ void plane_sums(const float* delta, const float* x,
    const float* mean, const float* variance, float* out, Planes planes, float epsilon) {
    const u32 count = members(planes);
    double sum = 0, both = 0;
    const float middle = x ? mean[blockIdx.x] : 0.f;
    for (u32 at = threadIdx.x; at < count; at += blockDim.x) {
        const u64 place = place_in(planes, blockIdx.x, at);
        sum += delta[place];
        if (x) both += (x[place] - middle) * delta[place];
    }
    sum = block_sum(sum);
    both = block_sum(both);
    if (threadIdx.x != 0) return;
    if (!x) {
        out[blockIdx.x] = sum;
        return;
    }
    out[2 * blockIdx.x] = sum / count;
    out[2 * blockIdx.x + 1] = both / sqrtf(variance[blockIdx.x] + epsilon) / count;
}

// max(z, slope·z) with z = (x − mean) / √(variance + ε) + bias; without moments z = x +
// bias.
extern "C" __global__ void standardised_relu(const float* x, const float* mean,
    const float* variance, const float* bias, float* out, Planes planes, float epsilon,
    float slope, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    float value = x[at];
    if (mean) {
        const u32 group = group_of(planes, at);
        value = (value - mean[group]) / sqrtf(variance[group] + epsilon);
    }
    value += bias[at / planes.size % planes.channels];
    out[at] = value < 0.f ? slope * value : value;
}

// s·(delta − mean(delta) − n·mean(n·delta)), s = 1 / √(variance + ε); without means
// s·delta.
extern "C" __global__ void moments_gradient(const float* x, const float* delta,
    const float* mean, const float* variance, const float* means, float* out,
    Planes planes, float epsilon, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const u32 group = group_of(planes, at);
    const float scale = 1.f / sqrtf(variance[group] + epsilon);
    float value = delta[at];
    if (means)
        value -= means[2 * group] + (x[at] - mean[group]) * scale * means[2 * group + 1];
    out[at] = scale * value;
}

// The mean of each cell of planes: (planes, H, W) to (planes, H/down, W/across); in
// reverse, the mean's gradient for each of its pixels.
extern "C" __global__ void cells(
    const float* x, float* out, u32 height, u32 width, u32 down, u32 across, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const u32 columns = width / across, rows = height / down;
    const u32 column = at % columns, row = at / columns % rows;
    const float* pixels = x + at / ((u64)columns * rows) * height * width +
                          row * down * width + column * across;
    float sum = 0.f;
    for (u32 y = 0; y < down; ++y) {
        for (u32 x_ = 0; x_ < across; ++x_) sum += pixels[y * width + x_];
    }
    out[at] = sum / (down * across);
}

extern "C" __global__ void from_cells(
    const float* x, float* out, u32 height, u32 width, u32 down, u32 across, u64 count) {
    const u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const u32 column = at % width, row = at / width % height;
    const u64 plane = at / ((u64)width * height);
    out[at] =
        x[(plane * (height / down) + row / down) * (width / across) + column / across] /
        (down * across);
}
