//! A chart of curves over whole numbers, as SVG text. Knows lines and points,
//! not what they mean. Light and dark follow the reader's preference.

/// A chart whose values are shares, shown in percent.
pub(super) struct Chart {
    /// Heading.
    pub(super) title: String,
    /// What runs to the right.
    pub(super) x: String,
    /// What runs up.
    pub(super) y: String,
    /// A line under the heading: what the bars are.
    pub(super) note: String,
    /// Lines with points.
    pub(super) curves: Vec<Curve>,
    /// Horizontal lines.
    pub(super) levels: Vec<Level>,
}

/// A line through points.
pub(super) struct Curve {
    name: String,
    /// Its points from left to right.
    pub(super) points: Vec<Point>,
    dashed: bool,
    colour: usize,
}

/// A point with its bar.
#[derive(Clone, Copy)]
pub(super) struct Point {
    /// Place.
    pub(super) x: u64,
    /// Value.
    pub(super) y: f64,
    /// Lower end of the bar.
    pub(super) low: f64,
    /// Upper end of the bar.
    pub(super) high: f64,
}

/// A horizontal line.
pub(super) struct Level {
    /// Name in the legend.
    pub(super) name: String,
    /// Value.
    pub(super) y: f64,
}

impl Curve {
    /// A curve, unless it has no points. Colours are numbered.
    pub(super) fn new(
        name: &str,
        mut points: Vec<Point>,
        dashed: bool,
        colour: usize,
    ) -> Option<Curve> {
        points.sort_by_key(|point| point.x);
        let name = name.to_owned();
        (!points.is_empty()).then_some(Curve { name, points, dashed, colour })
    }
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 364.0;
/// Colours that differ for most eyes (Okabe and Ito, 2008), for light and dark.
const COLOURS: [(&str, &str); 7] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#f08a4b"),
    ("#555555", "#b0b0b0"),
    ("#009e73", "#3fd0a4"),
    ("#a65482", "#dd9cc0"),
    ("#a87900", "#e6b935"),
    ("#5b4db2", "#a79bf0"),
];
/// Places of a legend's columns.
const COLUMNS: [f64; 2] = [LEFT, 398.0];
const LEGEND_LINE: f64 = 20.0;

impl Chart {
    /// The whole file.
    pub(super) fn svg(&self) -> String {
        let entries = self.curves.len() + self.levels.len();
        let height = BOTTOM + 62.0 + entries.div_ceil(COLUMNS.len()) as f64 * LEGEND_LINE;
        let scale = Scale::of(self);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <title>{}</title>\n<style>\n{}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
            escape(&self.title),
            style()
        );
        out.push_str(&format!(
            "<text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"46\" class=\"faint\">{}</text>\n",
            escape(&self.title),
            escape(&self.note)
        ));
        self.axes(&scale, &mut out);
        for level in &self.levels {
            let y = scale.y(level.y);
            out.push_str(&format!(
                "<line class=\"level\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
                 stroke-dasharray=\"2 4\"/>\n"
            ));
        }
        // Bars of several curves at one place would hide each other.
        let middle = (self.curves.len() as f64 - 1.0) / 2.0;
        for (i, curve) in self.curves.iter().enumerate() {
            draw(curve, &scale, (i as f64 - middle) * 4.0, &mut out);
        }
        self.legend(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn axes(&self, scale: &Scale, out: &mut String) {
        for tick in 0..=10 {
            let value = f64::from(tick) * scale.tick;
            if value > scale.most + 1e-9 {
                break;
            }
            let y = scale.y(value);
            out.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>\n",
                LEFT - 8.0,
                y + 4.0,
                value * 100.0
            ));
        }
        for place in scale.first..=scale.last {
            let x = scale.x(place);
            let y = BOTTOM + 18.0;
            out.push_str(&format!(
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{place}</text>\n"
            ));
        }
        let (x, y) = ((LEFT + RIGHT) / 2.0, BOTTOM + 38.0);
        out.push_str(&format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>\n",
            escape(&self.x)
        ));
        let y = (TOP + BOTTOM) / 2.0;
        out.push_str(&format!(
            "<text x=\"16\" y=\"{y}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 16 {y})\">{}</text>\n",
            escape(&self.y)
        ));
    }

    fn legend(&self, out: &mut String) {
        let curves = self.curves.iter().map(|curve| {
            let class = format!("c{}", curve.colour % COLOURS.len());
            (class, if curve.dashed { "7 5" } else { "none" }, &curve.name)
        });
        let levels = self.levels.iter().map(|level| ("level".to_owned(), "2 4", &level.name));
        for (i, (class, dashes, name)) in curves.chain(levels).enumerate() {
            let x = COLUMNS[i % COLUMNS.len()];
            let y = BOTTOM + 64.0 + (i / COLUMNS.len()) as f64 * LEGEND_LINE;
            out.push_str(&format!(
                "<line class=\"{class}\" x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" \
                 stroke-dasharray=\"{dashes}\"/><text x=\"{}\" y=\"{}\">{}</text>\n",
                x + 30.0,
                x + 38.0,
                y + 4.0,
                escape(name)
            ));
        }
    }
}

fn draw(curve: &Curve, scale: &Scale, aside: f64, out: &mut String) {
    let class = format!("c{}", curve.colour % COLOURS.len());
    let place = |point: &Point| (scale.x(point.x) + aside, scale.y(point.y));
    let places: Vec<String> =
        curve.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dashes = if curve.dashed { " stroke-dasharray=\"7 5\"" } else { "" };
    out.push_str(&format!(
        "<g class=\"{class}\"><polyline fill=\"none\"{dashes} points=\"{}\"/>\n",
        places.join(" ")
    ));
    for point in &curve.points {
        let (x, y) = place(point);
        let (low, high) = (scale.y(point.low), scale.y(point.high));
        let (left, right) = (x - 3.0, x + 3.0);
        out.push_str(&format!(
            "<path class=\"bar\" d=\"M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}\
             M{left:.1} {high:.1}H{right:.1}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>\n"
        ));
    }
    out.push_str("</g>\n");
}

/// From values to places on the page.
struct Scale {
    first: u64,
    last: u64,
    most: f64,
    tick: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Scale {
        let points = || chart.curves.iter().flat_map(|curve| &curve.points);
        let first = points().map(|point| point.x).min().unwrap_or(0);
        let last = points().map(|point| point.x).max().unwrap_or(0).min(first + 100);
        let values = points().map(|point| point.high).chain(chart.levels.iter().map(|l| l.y));
        let highest = values.fold(0.0f64, f64::max);
        let tick = [0.02, 0.05, 0.1, 0.2].into_iter().find(|t| t * 6.0 >= highest).unwrap_or(0.2);
        let most = ((highest / tick - 1e-9).ceil() * tick).clamp(tick, 1.0);
        Scale { first, last, most, tick }
    }

    fn x(&self, place: u64) -> f64 {
        let (from, to) = (LEFT + 40.0, RIGHT - 40.0);
        let span = (self.last - self.first).max(1) as f64;
        from + place.saturating_sub(self.first) as f64 / span * (to - from)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (value / self.most).clamp(0.0, 1.0) * (BOTTOM - TOP)
    }
}

fn style() -> String {
    let rules = |dark: bool| {
        let pick = |light: &'static str, night: &'static str| if dark { night } else { light };
        let mut out = format!(
            ".paper {{ fill: {} }} text {{ fill: {} }} .faint {{ fill: {} }} .grid {{ stroke: {} \
             }} .level {{ stroke: {} }}\n",
            pick("#ffffff", "#0d1117"),
            pick("#1f2328", "#e6edf3"),
            pick("#59636e", "#9198a1"),
            pick("#d9dee3", "#2b323b"),
            pick("#59636e", "#9198a1"),
        );
        for (i, (light, night)) in COLOURS.into_iter().enumerate() {
            let colour = pick(light, night);
            out.push_str(&format!(
                ".c{i} {{ stroke: {colour} }} .c{i} circle {{ fill: {colour} }}\n"
            ));
        }
        out
    };
    format!(
        "polyline, line {{ stroke-width: 2 }} .grid {{ stroke-width: 1 }} .bar {{ fill: none; \
         stroke-width: 1.2 }} circle {{ stroke: none }}\n{}\
         @media (prefers-color-scheme: dark) {{\n{}}}\n",
        rules(false),
        rules(true)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
