// Split-step propagation of single-precision fields through a Kerr medium.
// Tables are made by plan.py.

#include "lines.hpp"

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
        take_rows(field, line, rows, columns, strip);
        visit(line, medium.columns, medium, node, strip);
        put_rows(line, field, rows, columns, strip);
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
