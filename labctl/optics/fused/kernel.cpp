// Split-step propagation of single-precision fields through a Kerr medium.
//
// Paraxial diffraction is separable and its two halves commute, so a step is a
// transform, a factor and the inverse transform along one axis, and the same along
// the other. Two steps in a row visit each axis once: a field is read and written
// once a step, and all the transforms of a line happen while it is in the nearest
// cache. Lines lie side by side in a SIMD register, so that no butterfly shuffles;
// forward transforms decimate in frequency and inverse ones in time, so that none
// is reordered: the factors come in the order in which the transform leaves them.
//
// One field at a time, on one thread, with the same instructions for each: how
// fields are grouped into calls changes no bit. Tables are made by plan.py.

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

typedef float Vector __attribute__((vector_size(4 * LANES), may_alias));
typedef std::int32_t Whole __attribute__((vector_size(4 * LANES), may_alias));

struct Complex {
    Vector re, im;
};

struct Line {  // real and imaginary parts of LANES neighbouring lines
    Vector *re, *im;

    Complex at(std::int64_t k) const { return {re[k], im[k]}; }
    void put(std::int64_t k, Complex a) const { re[k] = a.re, im[k] = a.im; }
};

inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }

inline Complex times(Complex a, const float *w) {
    return {a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

inline Complex times_conjugate(Complex a, const float *w) {
    return {a.re * w[0] + a.im * w[1], a.im * w[0] - a.re * w[1]};
}

// a + i b, or a - i b.
template <bool positive> inline Complex turned(Complex a, Complex b) {
    return positive ? Complex{a.re - b.im, a.im + b.re}
                    : Complex{a.re + b.im, a.im - b.re};
}

template <bool inverse> inline void transform4(Complex *a) {
    const Complex even = a[0] + a[2], odd = a[1] + a[3];
    const Complex first = a[0] - a[2], second = a[1] - a[3];
    a[0] = even + odd, a[2] = even - odd;
    a[1] = turned<inverse>(first, second), a[3] = turned<!inverse>(first, second);
}

template <bool inverse> inline void transform8(Complex *a) {
    Complex even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
    transform4<inverse>(even);
    transform4<inverse>(odd);
    const float half = 0.70710678f;
    const float one[2] = {half, inverse ? half : -half};
    const float three[2] = {-half, inverse ? half : -half};
    odd[1] = times(odd[1], one);
    odd[3] = times(odd[3], three);
    for (int k = 0; k < 4; ++k) a[k] = even[k] + odd[k], a[k + 4] = even[k] - odd[k];
    a[2] = turned<inverse>(even[2], odd[2]), a[6] = turned<!inverse>(even[2], odd[2]);
}

// The last stage of the transform, the factors, and the first stage back.
template <int points> inline void turn_round(Line line, std::int64_t length,
                                             const float *factor) {
    for (std::int64_t at = 0; at < length; at += points) {
        Complex a[points];
        for (int k = 0; k < points; ++k) a[k] = line.at(at + k);
        points == 4 ? transform4<false>(a) : transform8<false>(a);
        for (int k = 0; k < points; ++k) a[k] = times(a[k], factor + 2 * (at + k));
        points == 4 ? transform4<true>(a) : transform8<true>(a);
        for (int k = 0; k < points; ++k) line.put(at + k, a[k]);
    }
}

template <bool inverse> inline void stage(Line line, std::int64_t length,
                                          std::int64_t block, const float *twiddle) {
    const std::int64_t quarter_block = block / 4;
    for (std::int64_t j = 0; j < quarter_block; ++j, twiddle += 6) {
        for (std::int64_t at = j; at < length; at += block) {
            Complex a[4];
            for (int q = 0; q < 4; ++q) {
                a[q] = line.at(at + q * quarter_block);
                if (inverse && q > 0) a[q] = times_conjugate(a[q], twiddle + 2 * q - 2);
            }
            transform4<inverse>(a);
            for (int q = 0; q < 4; ++q) {
                if (!inverse && q > 0) a[q] = times(a[q], twiddle + 2 * q - 2);
                line.put(at + q * quarter_block, a[q]);
            }
        }
    }
}

}  // namespace

struct Axis {
    std::int64_t length;    // a power of two from 16
    const float *twiddle;   // for each stage but the last, (point, 3) complex
    const float *transfer;  // (point) complex, in the order of the transform
};

struct Kick {
    float b, damp, inverse_saturation;
    std::int32_t phase;  // 0: none, 1: at most an eighth of a turn, 2: any
    std::int32_t mask;   // 0: none, 1: real, 2: complex
    const float *mask_re, *mask_im;  // (strip, point, lane), as they are visited
};

struct Medium {
    Axis rows, columns;  // along a column of the picture, and along a row
    std::int64_t steps;
    const Kick *kicks;  // one more than steps
};

namespace {

// Diffraction of one step along one axis.
void diffract(Line line, const Axis &axis) {
    const float *twiddle = axis.twiddle;
    std::int64_t block = axis.length;
    for (; block > 8; block /= 4) {
        stage<false>(line, axis.length, block, twiddle);
        twiddle += 6 * (block / 4);
    }
    if (block == 8) turn_round<8>(line, axis.length, axis.transfer);
    else turn_round<4>(line, axis.length, axis.transfer);
    for (block *= 4; block <= axis.length; block *= 4) {
        twiddle -= 6 * (block / 4);
        stage<true>(line, axis.length, block, twiddle);
    }
}

// Sine and cosine: Taylor's polynomials are exact to single precision up to pi/4.
template <int phase> inline Complex phasor(Vector angle) {
    Vector r = angle;
    Whole turns = {};
    if (phase == 2) {
        const float round = 12582912.0f;  // 1.5 * 2^23: the last bit counts ones
        const Vector shifted = angle * 0.63661977f + round;
        std::memcpy(&turns, &shifted, sizeof turns);
        const Vector quarters = shifted - round;
        r = angle - quarters * 1.5707964f + quarters * 4.371139e-8f;
    }
    const Vector x = r * r;
    Vector c = x * 2.4801587e-5f - 1.3888889e-3f;
    c = (c * x + 4.1666668e-2f) * x - 0.5f;
    c = c * x + 1.0f;
    Vector s = x * 2.7557319e-6f - 1.9841270e-4f;
    s = (s * x + 8.3333333e-3f) * x - 1.6666667e-1f;
    s = s * x * r + r;
    if (phase != 2) return {c, s};
    const Whole odd = (turns & 1) != 0;
    const Vector re = odd ? s : c, im = odd ? c : s;
    Whole re_bits, im_bits;
    std::memcpy(&re_bits, &re, sizeof re);
    std::memcpy(&im_bits, &im, sizeof im);
    re_bits ^= ((turns + 1) & 2) << 30;
    im_bits ^= (turns & 2) << 30;
    Complex out;
    std::memcpy(&out.re, &re_bits, sizeof re);
    std::memcpy(&out.im, &im_bits, sizeof im);
    return out;
}

inline Vector load(const float *at) {
    Vector v;
    std::memcpy(&v, at, sizeof v);
    return v;
}

template <int phase, int mask>
void kicked(Line line, std::int64_t length, const Kick &kick, std::int64_t strip) {
    const float *mask_re = kick.mask_re + strip * length * LANES;
    const float *mask_im = kick.mask_im + strip * length * LANES;
    for (std::int64_t k = 0; k < length; ++k) {
        const Complex a = line.at(k);
        Complex turn = {Vector{} + 1.0f, Vector{}};
        if (phase != 0) {
            const Vector light = (a.re * a.re + a.im * a.im) * kick.damp;
            turn = phasor<phase>(light * kick.b /
                                 (light * kick.inverse_saturation + 1.0f));
        }
        if (mask == 1) {
            const Vector m = load(mask_re + k * LANES);
            turn = {turn.re * m, turn.im * m};
        } else if (mask == 2) {
            const Vector m = load(mask_re + k * LANES), n = load(mask_im + k * LANES);
            turn = {turn.re * m - turn.im * n, turn.re * n + turn.im * m};
        }
        line.put(k, {a.re * turn.re - a.im * turn.im, a.re * turn.im + a.im * turn.re});
    }
}

template <int phase>
void kick_masked(Line line, std::int64_t length, const Kick &kick, std::int64_t strip) {
    if (kick.mask == 0) kicked<phase, 0>(line, length, kick, strip);
    else if (kick.mask == 1) kicked<phase, 1>(line, length, kick, strip);
    else kicked<phase, 2>(line, length, kick, strip);
}

void visit(Line line, const Axis &axis, const Medium &medium, std::int64_t node,
           std::int64_t strip) {
    const Kick &kick = medium.kicks[node];
    if (node > 0) diffract(line, axis);
    if (kick.phase == 0) kick_masked<0>(line, axis.length, kick, strip);
    else if (kick.phase == 1) kick_masked<1>(line, axis.length, kick, strip);
    else kick_masked<2>(line, axis.length, kick, strip);
    if (node < medium.steps) diffract(line, axis);
}

// Transposes LANES vectors: log2(LANES) times a perfect shuffle of two halves.
inline void transpose(const Vector *from, Vector *to, std::int64_t step) {
    Vector a[LANES], b[LANES];
    for (int k = 0; k < LANES; ++k) a[k] = from[k];
    for (int round = LANES; round > 1; round /= 2) {
        for (int k = 0; k < LANES / 2; ++k) {
#if LANES == 16
            b[2 * k] = __builtin_shufflevector(a[k], a[k + 8], 0, 16, 1, 17, 2, 18, 3,
                                               19, 4, 20, 5, 21, 6, 22, 7, 23);
            b[2 * k + 1] = __builtin_shufflevector(a[k], a[k + 8], 8, 24, 9, 25, 10, 26,
                                                   11, 27, 12, 28, 13, 29, 14, 30, 15,
                                                   31);
#elif LANES == 8
            b[2 * k] =
                __builtin_shufflevector(a[k], a[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            b[2 * k + 1] =
                __builtin_shufflevector(a[k], a[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
#else
            b[2 * k] = __builtin_shufflevector(a[k], a[k + 2], 0, 4, 1, 5);
            b[2 * k + 1] = __builtin_shufflevector(a[k], a[k + 2], 2, 6, 3, 7);
#endif
        }
        for (int k = 0; k < LANES; ++k) a[k] = b[k];
    }
    for (int k = 0; k < LANES; ++k) to[k * step] = a[k];
}

// A field lies as (strip of columns, row, lane), parts apart.
void along_columns(Line field, const Medium &medium, std::int64_t node) {
    const std::int64_t rows = medium.rows.length, columns = medium.columns.length;
    for (std::int64_t strip = 0; strip < columns / LANES; ++strip) {
        const Line line = {field.re + strip * rows, field.im + strip * rows};
        visit(line, medium.rows, medium, node, strip);
    }
}

void along_rows(Line field, Line line, const Medium &medium, std::int64_t node) {
    const std::int64_t rows = medium.rows.length, columns = medium.columns.length;
    for (std::int64_t strip = 0; strip < rows / LANES; ++strip) {
        for (std::int64_t at = 0; at < columns / LANES; ++at) {
            const std::int64_t block = at * rows + strip * LANES;
            transpose(field.re + block, line.re + at * LANES, 1);
            transpose(field.im + block, line.im + at * LANES, 1);
        }
        visit(line, medium.columns, medium, node, strip);
        for (std::int64_t at = 0; at < columns / LANES; ++at) {
            const std::int64_t block = at * rows + strip * LANES;
            transpose(line.re + at * LANES, field.re + block, 1);
            transpose(line.im + at * LANES, field.im + block, 1);
        }
    }
}

template <bool apart>
void take(float *picture, float *re, float *im, std::int64_t rows,
          std::int64_t columns) {
    for (std::int64_t strip = 0; strip < columns / LANES; ++strip) {
        for (std::int64_t row = 0; row < rows; ++row) {
            float *there = picture + 2 * (row * columns + strip * LANES);
            float *x = re + (strip * rows + row) * LANES;
            float *y = im + (strip * rows + row) * LANES;
            for (int lane = 0; lane < LANES; ++lane) {
                if (apart) x[lane] = there[2 * lane], y[lane] = there[2 * lane + 1];
                else there[2 * lane] = x[lane], there[2 * lane + 1] = y[lane];
            }
        }
    }
}

}  // namespace

EXPORT std::int64_t labctl_lanes() { return LANES; }

// Carries fields, (field, row, column) of complex numbers, through the medium in
// place. Scratch holds 2 * (rows * columns + LANES * columns) floats, aligned to 64.
EXPORT void labctl_propagate(float *fields, std::int64_t count, const Medium *medium,
                             float *scratch) {
    const std::int64_t rows = medium->rows.length, columns = medium->columns.length;
    const std::int64_t points = rows * columns;
    float *re = scratch, *im = scratch + points;
    float *line_re = im + points, *line_im = line_re + LANES * columns;
    const Line field = {reinterpret_cast<Vector *>(re), reinterpret_cast<Vector *>(im)};
    const Line line = {reinterpret_cast<Vector *>(line_re),
                       reinterpret_cast<Vector *>(line_im)};
    for (std::int64_t each = 0; each < count; ++each) {
        float *picture = fields + each * 2 * points;
        take<true>(picture, re, im, rows, columns);
        for (std::int64_t node = 0; node <= medium->steps; ++node) {
            if (node % 2 == 0) along_columns(field, *medium, node);
            else along_rows(field, line, *medium, node);
        }
        take<false>(picture, re, im, rows, columns);
    }
}
