// Lines of a field in SIMD registers: their transforms, and what a kick needs.
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
// fields are grouped into calls changes no bit. Tables are made in Python.

#pragma once

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

namespace {

// Forward transform along a line but for its last stage; returns what is left to do.
inline std::int64_t descend(Line line, const Axis &axis, const float *&twiddle) {
    std::int64_t block = axis.length;
    for (; block > 8; block /= 4) {
        stage<false>(line, axis.length, block, twiddle);
        twiddle += 6 * (block / 4);
    }
    return block;
}

// The inverse transform but for its first stage.
inline void ascend(Line line, const Axis &axis, const float *twiddle,
                   std::int64_t block) {
    for (block *= 4; block <= axis.length; block *= 4) {
        twiddle -= 6 * (block / 4);
        stage<true>(line, axis.length, block, twiddle);
    }
}

// Diffraction of one step along one axis.
inline void diffract(Line line, const Axis &axis) {
    const float *twiddle = axis.twiddle;
    const std::int64_t block = descend(line, axis, twiddle);
    if (block == 8) turn_round<8>(line, axis.length, axis.transfer);
    else turn_round<4>(line, axis.length, axis.transfer);
    ascend(line, axis, twiddle, block);
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

// Lines along the rows of a strip, out of the field and back into it.
inline void take_rows(Line field, Line line, std::int64_t rows, std::int64_t columns,
                      std::int64_t strip) {
    for (std::int64_t at = 0; at < columns / LANES; ++at) {
        const std::int64_t block = at * rows + strip * LANES;
        transpose(field.re + block, line.re + at * LANES, 1);
        transpose(field.im + block, line.im + at * LANES, 1);
    }
}

inline void put_rows(Line line, Line field, std::int64_t rows, std::int64_t columns,
                     std::int64_t strip) {
    for (std::int64_t at = 0; at < columns / LANES; ++at) {
        const std::int64_t block = at * rows + strip * LANES;
        transpose(line.re + at * LANES, field.re + block, 1);
        transpose(line.im + at * LANES, field.im + block, 1);
    }
}

template <bool apart>
inline void take(float *picture, float *re, float *im, std::int64_t rows,
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
