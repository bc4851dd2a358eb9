//! Stacks laid upon one another: folded, as tools read them, or as a page that needs nothing but a browser.

use std::collections::BTreeMap;

/// Functions of a stack; deeper ones count in the last of these.
const DEEPEST: usize = 1024;

/// A tree of functions with what was seen in each.
#[derive(Debug, Default)]
pub(crate) struct Flame {
    weight: u64,
    /// Of the stacks that end here.
    own: u64,
    inner: BTreeMap<String, Self>,
}

impl Flame {
    /// Adds a stack, the outermost function first.
    pub(crate) fn add(&mut self, functions: Vec<String>, weight: u64) {
        let mut at = self;
        at.weight = at.weight.saturating_add(weight);
        for function in functions.into_iter().take(DEEPEST) {
            at = at.inner.entry(function).or_default();
            at.weight = at.weight.saturating_add(weight);
        }
        at.own = at.own.saturating_add(weight);
    }

    /// `outer;…;inner weight`, a line for each stack.
    pub(crate) fn folded(&self) -> String {
        let mut out = String::new();
        // Without recursion: stacks are as deep as programs make them.
        let mut rest: Vec<(String, &Self)> = vec![(String::new(), self)];
        while let Some((path, flame)) = rest.pop() {
            if flame.own > 0 && !path.is_empty() {
                out.push_str(&format!("{path} {}\n", flame.own));
            }
            for (name, inner) in flame.inner.iter().rev() {
                // The two characters that have a meaning in this format.
                let name = name.replace(';', ",").replace(['\n', '\r'], " ");
                let path = if path.is_empty() { name } else { format!("{path};{name}") };
                rest.push((path, inner));
            }
        }
        out
    }
}

/// One function of the page.
struct Box<'a> {
    name: &'a str,
    depth: usize,
    /// Of the whole.
    from: f64,
    share: f64,
    weight: u64,
}

/// Narrower ones cannot be seen.
const NARROWEST: f64 = 0.000_2;
const ROW_PX: usize = 19;

/// A page of its own, with nothing loaded from anywhere. `words` says what a weight is.
pub(crate) fn html(flame: &Flame, title: &str, words: impl Fn(u64) -> String) -> String {
    let boxes = boxes(flame);
    let depth = boxes.iter().map(|one| one.depth + 1).max().unwrap_or(0);
    let title = escaped(title);
    let all = escaped(&words(flame.weight));
    let mut body = String::new();
    for one in &boxes {
        let name = escaped(one.name);
        body.push_str(&format!(
            "<div class=\"f c{}\" style=\"left:{:.4}%;width:{:.4}%;top:{}px\" title=\"{name}: {}, {:.1} %\">{name}</div>\n",
            colour(one.name),
            one.from * 100.0,
            one.share * 100.0,
            one.depth * ROW_PX,
            escaped(&words(one.weight)),
            one.share * 100.0,
        ));
    }
    if boxes.is_empty() {
        body.push_str("<p>no stack was taken</p>\n");
    }
    PAGE.replace("{title}", &title)
        .replace("{all}", &all)
        .replace("{height}", &(depth * ROW_PX).to_string())
        // Last: what it holds is not looked through again.
        .replace("{boxes}", &body)
}

fn boxes(flame: &Flame) -> Vec<Box<'_>> {
    let whole = flame.weight.max(1) as f64;
    let mut boxes = Vec::new();
    let mut rest = vec![(flame, 0, 0.0)];
    while let Some((flame, depth, mut from)) = rest.pop() {
        for (name, inner) in &flame.inner {
            let share = inner.weight as f64 / whole;
            if share >= NARROWEST {
                boxes.push(Box { name, depth, from, share, weight: inner.weight });
                rest.push((inner, depth + 1, from));
            }
            from += share;
        }
    }
    boxes
}

/// One of eight, the same for the functions of one crate.
fn colour(name: &str) -> u32 {
    let krate = name.split("::").next().unwrap_or(name);
    krate.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 8
}

/// Names come from the target: none of them may be markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A click on a function makes it as wide as the page; a click on one above it, or beside, goes back.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
body { font: 13px system-ui, sans-serif; margin: 16px; background: #fff; color: #222 }
#flame { position: relative; height: {height}px; overflow: hidden }
.f { position: absolute; height: 17px; line-height: 17px; padding: 0 3px; box-sizing: border-box; overflow: hidden;
  white-space: nowrap; text-overflow: ellipsis; cursor: pointer; border: 1px solid #fff; border-radius: 2px; color: #222 }
.f:hover { border-color: #222 }
.c0 { background: #f4b183 } .c1 { background: #ffd966 } .c2 { background: #c5e0b4 } .c3 { background: #9dc3e6 }
.c4 { background: #f8cbad } .c5 { background: #d9c3e8 } .c6 { background: #b4d9d3 } .c7 { background: #e6d3a3 }
</style>
</head>
<body>
<h1 style="font-size: 16px">{title}</h1>
<p>{all} in all. The outermost function is at the top; a click makes one as wide as the page.</p>
<div id="flame">
{boxes}</div>
<script>
const all = [...document.querySelectorAll('.f')].map(box => ({
  box, left: parseFloat(box.style.left), width: parseFloat(box.style.width), top: parseFloat(box.style.top) }));
let wide = null;
function show(one) {
  const left = one ? one.left : 0, width = one ? one.width : 100, end = left + width, near = 1e-3;
  for (const it of all) {
    const holds = one && it.top < one.top && it.left <= left + near && it.left + it.width >= end - near;
    const inside = it.left >= left - near && it.left + it.width <= end + near && (!one || it.top >= one.top);
    it.box.style.display = holds || inside ? '' : 'none';
    it.box.style.left = (holds ? 0 : (it.left - left) / width * 100) + '%';
    it.box.style.width = (holds ? 100 : it.width / width * 100) + '%';
  }
  wide = one;
}
for (const it of all) it.box.onclick = () => show(wide === it ? null : it);
</script>
</body>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn flame() -> Flame {
        let mut flame = Flame::default();
        let stack = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        flame.add(stack(&["POST /x", "api::f", "bcrypt::hash"]), 3);
        flame.add(stack(&["POST /x", "api::f"]), 1);
        flame.add(stack(&["<script>alert(1)</script>", "a;b"]), 4);
        flame
    }

    #[test]
    fn folded_stacks_are_a_line_each_and_a_semicolon_is_no_name() {
        assert_eq!(
            flame().folded(),
            "<script>alert(1)</script>;a,b 4\nPOST /x;api::f 1\nPOST /x;api::f;bcrypt::hash 3\n"
        );
    }

    #[test]
    fn a_page_needs_nothing_and_no_name_is_markup() {
        let page = html(&flame(), "api & <co>", |weight| format!("{weight} s"));
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("<title>api &amp; &lt;co&gt;</title>"));
        for loads in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert_eq!(page.matches("class=\"f ").count(), 5, "one box a function");
        assert!(
            page.contains("left:50.0000%;width:37.5000%;top:38px\" title=\"bcrypt::hash: 3 s, 37.5 %\""),
            "{page}"
        );
    }

    #[test]
    fn what_weighs_nothing_and_what_is_deep_is_drawn_too() {
        assert!(html(&Flame::default(), "none", |weight| weight.to_string()).contains("no stack was taken"));
        let mut deep = Flame::default();
        deep.add((0..20_000).map(|at| format!("f{at}")).collect(), u64::MAX);
        deep.add(vec!["g".into()], u64::MAX);
        assert_eq!(deep.folded().lines().count(), 2);
        let page = html(&deep, "deep", |weight| weight.to_string());
        assert_eq!(page.matches("class=\"f ").count(), DEEPEST + 1);
    }
}
