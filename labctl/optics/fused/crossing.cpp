// Light through a saturable Kerr medium as a fit crosses it, and its derivative.
// Tables are made by crossing.py.
//
// With I = |E|^2, a node is
//
//     E' = left E exp(i lag),     lag = strength I / (1 + I / saturation) + screen
//
// Going there keeps the field before each kick, in the order of the visits; coming
// back computes the kick anew, which costs less than to keep it. A gradient G is that
// of the real part plus i times that of the imaginary part, as torch has it; the
// derivative of the lag is Im(G conj(E)), both before the kick.
//
// A step's transfer is exp(i length wave) / points along either axis. With S the
// transform of the gradient behind it, before the factor, and U that of the field in
// front of it, the derivative of the length is the sum of wave Im(S conj(transfer U)).

#include "lines.hpp"

struct Crossing {
    Axis rows, columns;                    // along a column of the picture, and a row
    const float *wave_rows, *wave_columns; // in the order of the transform
    std::int64_t steps;
    float inverse_saturation;
    const float *strength;       // (node), one more than steps
    const float *screen, *left;  // (node, strip, point, lane), as they are visited
};

struct Gradients {  // what is found is added
    float *screen, *left;  // (node, strip, point, lane)
    double *strength;      // (node)
    double saturation, length;
};

namespace {

struct Kicked {
    Vector response, slope;  // of the lag in the intensity, over strength
    Complex factor;
};

// Where a visit's strip begins in what has a number for each point of a node.
std::int64_t offset(const Crossing &medium, std::int64_t node, std::int64_t strip) {
    const std::int64_t points = medium.rows.length * medium.columns.length;
    const Axis &axis = node % 2 ? medium.columns : medium.rows;
    return node * points + strip * axis.length * LANES;
}

inline Kicked kick(Complex a, const Crossing &medium, float strength,
                   const float *screen, const float *left) {
    const Vector light = a.re * a.re + a.im * a.im;
    // The slope of the response is the square of its share of the intensity.
    const Vector share = 1.0f / (light * medium.inverse_saturation + 1.0f);
    const Vector response = light * share;
    const Complex turn = phasor<2>(response * strength + load(screen));
    const Vector m = load(left);
    return {response, share * share, {turn.re * m, turn.im * m}};
}

inline Complex multiplied(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

void visit(Line line, const Axis &axis, const Crossing &medium, std::int64_t node,
           std::int64_t strip, float *course) {
    const std::int64_t points = medium.rows.length * medium.columns.length;
    const std::int64_t here = offset(medium, node, strip);
    if (node > 0) diffract(line, axis);
    if (course) {
        float *kept = course + node * points + here;
        std::memcpy(kept, line.re, axis.length * sizeof(Vector));
        std::memcpy(kept + points, line.im, axis.length * sizeof(Vector));
    }
    for (std::int64_t k = 0; k < axis.length; ++k) {
        const Complex a = line.at(k);
        const std::int64_t at = here + k * LANES;
        const Kicked is = kick(a, medium, medium.strength[node], medium.screen + at,
                               medium.left + at);
        line.put(k, multiplied(a, is.factor));
    }
    if (node < medium.steps) diffract(line, axis);
}

inline double sum(Vector v) {
    double total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += v[lane];
    return total;
}

// The last stage of the transform of a gradient, the factors, and the first stage
// back; in between, the derivative of the length, from the field on either side.
template <int points, bool inner, bool before>
Vector turn_against(Line line, Line field, const Axis &axis, const float *wave) {
    Vector found = {};
    for (std::int64_t at = 0; at < axis.length; at += points) {
        Complex a[points], b[points];
        for (int k = 0; k < points; ++k) a[k] = line.at(at + k);
        points == 4 ? transform4<false>(a) : transform8<false>(a);
        if (inner) {
            for (int k = 0; k < points; ++k) b[k] = field.at(at + k);
            points == 4 ? transform4<false>(b) : transform8<false>(b);
        }
        for (int k = 0; k < points; ++k) {
            const Complex behind = a[k];
            a[k] = times_conjugate(behind, axis.transfer + 2 * (at + k));
            // Behind the step the field has the factor, in front the gradient has.
            const Complex g = before ? a[k] : behind;
            if (inner) found += (g.im * b[k].re - g.re * b[k].im) * wave[at + k];
        }
        points == 4 ? transform4<true>(a) : transform8<true>(a);
        for (int k = 0; k < points; ++k) line.put(at + k, a[k]);
    }
    return found;
}

// Takes a gradient back through half a step; the field, which is spoilt, stood in
// front of it (before) or stands behind it. Returns the derivative of the length.
template <bool inner, bool before>
double diffract_against(Line line, Line field, const Axis &axis, const float *wave) {
    const float *twiddle = axis.twiddle;
    if (inner) descend(field, axis, twiddle);
    twiddle = axis.twiddle;
    const std::int64_t block = descend(line, axis, twiddle);
    const Vector found =
        block == 8 ? turn_against<8, inner, before>(line, field, axis, wave)
                   : turn_against<4, inner, before>(line, field, axis, wave);
    ascend(line, axis, twiddle, block);
    // The transform there and back has the number of points as a factor.
    return before ? sum(found) : sum(found) / double(axis.length);
}

struct Bench {  // what a visit works with, each a line of the longest axis
    Line gradient, field;
    Kicked *kicks;
};

template <bool inner>
void visit_back(Bench bench, const Axis &axis, const float *wave,
                const Crossing &medium, std::int64_t node, std::int64_t strip,
                const float *course, Gradients &found) {
    const std::int64_t points = medium.rows.length * medium.columns.length;
    const std::int64_t here = offset(medium, node, strip);
    const float *kept = course + node * points + here;
    const float strength = medium.strength[node];
    const Line line = bench.gradient, field = bench.field;
    for (std::int64_t k = 0; k < axis.length; ++k) {
        const Complex a = {load(kept + k * LANES), load(kept + points + k * LANES)};
        const std::int64_t at = here + k * LANES;
        bench.kicks[k] = kick(a, medium, strength, medium.screen + at,
                              medium.left + at);
        if (inner) field.put(k, multiplied(a, bench.kicks[k].factor));
    }
    if (node < medium.steps)
        found.length += diffract_against<inner, true>(line, field, axis, wave);
    Vector weighed = {}, squared = {};
    for (std::int64_t k = 0; k < axis.length; ++k) {
        const Complex a = {load(kept + k * LANES), load(kept + points + k * LANES)};
        const Kicked is = bench.kicks[k];
        const Complex g = line.at(k), w = is.factor;
        Complex pulled = {g.re * w.re + g.im * w.im, g.im * w.re - g.re * w.im};
        const Vector lag = pulled.im * a.re - pulled.re * a.im;
        const std::int64_t at = here + k * LANES;
        if (inner) {
            const Vector along = pulled.re * a.re + pulled.im * a.im;
            const Vector to_left = load(found.left + at) + along / load(medium.left + at);
            const Vector to_screen = load(found.screen + at) + lag;
            std::memcpy(found.left + at, &to_left, sizeof to_left);
            std::memcpy(found.screen + at, &to_screen, sizeof to_screen);
            weighed += lag * is.response;
            squared += lag * is.response * is.response;
            field.put(k, a);
        }
        const Vector more = lag * is.slope * (2 * strength);
        line.put(k, {pulled.re + more * a.re, pulled.im + more * a.im});
    }
    if (inner) {
        found.strength[node] += sum(weighed);
        found.saturation += double(strength) * sum(squared);
    }
    if (node > 0)
        found.length += diffract_against<inner, false>(line, field, axis, wave);
}

template <bool inner>
void come_back(float *gradients, std::int64_t count, const float *course,
               const Crossing &medium, Gradients &found, float *scratch) {
    const std::int64_t rows = medium.rows.length, columns = medium.columns.length;
    const std::int64_t points = rows * columns, longest = rows > columns ? rows : columns;
    float *re = scratch, *im = scratch + points;
    Vector *lines = reinterpret_cast<Vector *>(im + points);
    const Line whole = {reinterpret_cast<Vector *>(re), reinterpret_cast<Vector *>(im)};
    const Line row = {lines, lines + longest};
    const Line field = {lines + 2 * longest, lines + 3 * longest};
    Kicked *kicks = reinterpret_cast<Kicked *>(lines + 4 * longest);
    for (std::int64_t each = 0; each < count; ++each) {
        float *picture = gradients + each * 2 * points;
        const float *own = course + each * (medium.steps + 1) * 2 * points;
        take<true>(picture, re, im, rows, columns);
        for (std::int64_t node = medium.steps; node >= 0; --node) {
            if (node % 2 == 0) {
                for (std::int64_t strip = 0; strip < columns / LANES; ++strip) {
                    const Line line = {whole.re + strip * rows, whole.im + strip * rows};
                    visit_back<inner>({line, field, kicks}, medium.rows,
                                      medium.wave_rows, medium, node, strip, own,
                                      found);
                }
            } else {
                for (std::int64_t strip = 0; strip < rows / LANES; ++strip) {
                    take_rows(whole, row, rows, columns, strip);
                    visit_back<inner>({row, field, kicks}, medium.columns,
                                      medium.wave_columns, medium, node, strip, own,
                                      found);
                    put_rows(row, whole, rows, columns, strip);
                }
            }
        }
        take<false>(picture, re, im, rows, columns);
    }
}

}  // namespace

// Floats of scratch that either way needs, aligned to 64 bytes.
EXPORT std::int64_t labctl_crossing_scratch(std::int64_t rows, std::int64_t columns) {
    const std::int64_t longest = rows > columns ? rows : columns;
    return 2 * rows * columns + 8 * LANES * longest;
}

// Carries fields, (field, row, column) of complex numbers, through the medium in
// place. The course, where one is given, is (field, node, part, strip, point, lane).
EXPORT void labctl_cross(float *fields, std::int64_t count, const Crossing *medium,
                         float *course, float *scratch) {
    const std::int64_t rows = medium->rows.length, columns = medium->columns.length;
    const std::int64_t points = rows * columns;
    float *re = scratch, *im = scratch + points;
    Vector *lines = reinterpret_cast<Vector *>(im + points);
    const Line whole = {reinterpret_cast<Vector *>(re), reinterpret_cast<Vector *>(im)};
    const Line row = {lines, lines + columns};
    for (std::int64_t each = 0; each < count; ++each) {
        float *picture = fields + each * 2 * points;
        float *own = course ? course + each * (medium->steps + 1) * 2 * points : nullptr;
        take<true>(picture, re, im, rows, columns);
        for (std::int64_t node = 0; node <= medium->steps; ++node) {
            if (node % 2 == 0) {
                for (std::int64_t strip = 0; strip < columns / LANES; ++strip) {
                    const Line line = {whole.re + strip * rows, whole.im + strip * rows};
                    visit(line, medium->rows, *medium, node, strip, own);
                }
            } else {
                for (std::int64_t strip = 0; strip < rows / LANES; ++strip) {
                    take_rows(whole, row, rows, columns, strip);
                    visit(row, medium->columns, *medium, node, strip, own);
                    put_rows(row, whole, rows, columns, strip);
                }
            }
        }
        take<false>(picture, re, im, rows, columns);
    }
}

// Takes gradients back along a course, in place; derivatives of the medium itself are
// added to what is found, where that is given.
EXPORT void labctl_cross_back(float *gradients, std::int64_t count, const float *course,
                              const Crossing *medium, Gradients *found,
                              float *scratch) {
    Gradients none = {};
    if (found) come_back<true>(gradients, count, course, *medium, *found, scratch);
    else come_back<false>(gradients, count, course, *medium, none, scratch);
}
