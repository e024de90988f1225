/* Drawings as SVG (svg.h). */
#include "shim/command/view/svg.h"

#include <math.h>

/* Of DejaVu Sans Mono and Liberation Mono, the widest of the usual ones. */
#define PITCH 0.6021

/* Without variables or nesting: simple viewers know neither. */
const char svg_style[] =
    "svg.t text{font-family:\"DejaVu Sans Mono\",\"Liberation Mono\",Menlo,Consolas,monospace;"
    "white-space:pre}\n"
    "svg.t .g{fill:#fff}svg.t .x{fill:#1b1f24}svg.t .d{fill:#59636e}svg.t .b{font-weight:bold}\n"
    "svg.t .c0{fill:#0a58a8}svg.t .c1{fill:#9a4208}svg.t .r{fill:#b80f2a}\n"
    "svg.t .l{fill:none;stroke:#59636e;stroke-width:1.2}svg.t .n{fill:none;stroke:#d4d9de;"
    "stroke-width:1}\n"
    "svg.t .l0{fill:none;stroke:#0a58a8;stroke-width:1.3}svg.t .l1{fill:none;stroke:#9a4208;"
    "stroke-width:1.3}\n"
    "svg.t .lr{fill:none;stroke:#b80f2a;stroke-width:1.6}svg.t .lg{fill:none;stroke:#23763a;"
    "stroke-width:1.3}svg.t .lp{fill:none;stroke:#7b3fb3;stroke-width:1.3}\n"
    "svg.t .dash{stroke-dasharray:4 3}svg.t .thin{stroke-width:.8}svg.t .dot{stroke-width:3}\n"
    "svg.t .s-idle{fill:#e3e7eb}svg.t .s-syn{fill:#fbe7a8}svg.t .s-est{fill:#bfe6c8}"
    "svg.t .s-fin{fill:#fbd2b0}svg.t .s-wait{fill:#dccdf2}\n"
    "@media screen and (prefers-color-scheme:dark){\n"
    "svg.t .g{fill:#15191e}svg.t .x{fill:#e4e8ec}svg.t .d{fill:#9aa5b0}\n"
    "svg.t .c0{fill:#6db3f8}svg.t .c1{fill:#f0a26b}svg.t .r{fill:#ff7d8c}\n"
    "svg.t .l{stroke:#9aa5b0}svg.t .n{stroke:#343c45}svg.t .l0{stroke:#6db3f8}"
    "svg.t .l1{stroke:#f0a26b}svg.t .lr{stroke:#ff7d8c}svg.t .lg{stroke:#6cc785}"
    "svg.t .lp{stroke:#c39af0}\n"
    "svg.t .s-idle{fill:#3a424b}svg.t .s-syn{fill:#6b5514}svg.t .s-est{fill:#1f5a31}"
    "svg.t .s-fin{fill:#7a4313}svg.t .s-wait{fill:#513a75}\n"
    "}\n";

double svg_text_width(const char *s, double size)
{
    return (double)text_columns(s) * size * PITCH;
}

void svg_text(struct svg *g, double x, double y, double size, enum anchor anchor, const char *class,
              bool ground, const char *s)
{
    static const char *const anchors[] = {"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
    if (!*s)
        return;
    if (ground) {
        double w = svg_text_width(s, size) + 4;
        double left = x - (anchor == ANCHOR_END ? w - 2 : anchor == ANCHOR_MIDDLE ? w / 2 : 2);
        text_add(&g->grounds,
                 "<rect class=\"g\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", left,
                 y - size * 0.82, w, size * 1.06);
    }
    text_add(&g->texts, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" font-size=\"%g\"%s>", class, x, y,
             size, anchors[anchor]);
    text_add_xml(&g->texts, s);
    text_add(&g->texts, "</text>\n");
}

void svg_line(struct svg *g, double x1, double y1, double x2, double y2, const char *class)
{
    text_add(&g->lines, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", class, x1, y1, x2, y2);
}

void svg_rect(struct svg *g, double x, double y, double w, double h, const char *class)
{
    text_add(&g->lines,
             "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", class,
             x, y, w, h);
}

void svg_path(struct svg *g, const char *d, const char *class)
{
    text_add(&g->lines, "<path class=\"%s\" d=\"%s\"/>\n", class, d);
}

void svg_arrow_head(struct svg *g, double x, double y, double dx, double dy, const char *class)
{
    double n = hypot(dx, dy);
    if (n <= 0)
        return;
    dx /= n;
    dy /= n;
    text_add(&g->lines, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1fL%.1f %.1fZ\"/>\n", class, x, y,
             x - 8 * dx + 3.2 * dy, y - 8 * dy - 3.2 * dx, x - 8 * dx - 3.2 * dy,
             y - 8 * dy + 3.2 * dx);
}

void svg_cross(struct svg *g, double x, double y, const char *class)
{
    text_add(&g->lines, "<path class=\"%s\" d=\"M%.1f %.1fl9 9m0 -9l-9 9\"/>\n", class, x - 4.5,
             y - 4.5);
}

void svg_finish(struct svg *g, struct text *to, bool own_style, const char *title)
{
    text_add(to,
             "<svg class=\"t\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
             "width=\"%.0f\" height=\"%.0f\" role=\"img\">\n<title>",
             g->width, g->height, g->width, g->height);
    text_add_xml(to, title);
    text_add(to, "</title>\n");
    if (own_style)
        text_add(to, "<style>\n%s</style>\n", svg_style);
    text_add(to, "<rect class=\"g\" width=\"%.0f\" height=\"%.0f\"/>\n", g->width, g->height);
    text_add(to, "%s%s%s</svg>\n", g->lines.s ? g->lines.s : "", g->grounds.s ? g->grounds.s : "",
             g->texts.s ? g->texts.s : "");
    text_free(&g->lines);
    text_free(&g->grounds);
    text_free(&g->texts);
}
