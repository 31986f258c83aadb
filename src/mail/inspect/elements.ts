/** Elements and attributes of HTML, as far as html.ts treats them apart. */

/** Elements without content. */
export const VOID = new Set(
  'area base br col embed frame hr img input link meta param source track wbr'.split(' '),
)
/** Elements that begin and end a line of what is seen. */
export const BLOCK = new Set(
  'address article aside blockquote body br center dd details dialog div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section select summary table tbody td textarea tfoot th thead title tr ul'.split(
    ' ',
  ),
)
/** Content up to the end tag is no markup; of these, none of it is seen. */
export const RAW = new Set(['script', 'style', 'title', 'xmp', 'noembed', 'noframes', 'iframe'])
/** An element that ends an open one of these, when that one is the innermost. */
export const ENDS: Readonly<Record<string, ReadonlySet<string>>> = {
  p: new Set(['p']),
  li: new Set(['li', 'p']),
  td: new Set(['td', 'th', 'p']),
  th: new Set(['td', 'th', 'p']),
  tr: new Set(['td', 'th', 'tr', 'p']),
  dd: new Set(['dd', 'dt', 'p']),
  dt: new Set(['dd', 'dt', 'p']),
  option: new Set(['option']),
  a: new Set(['a']),
}
/** Of any version of HTML, and what mail programs add to it. */
export const KNOWN = new Set(
  `a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink blockquote
body br button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt
em embed fieldset figcaption figure font footer form frame frameset g h1 h2 h3 h4 h5 h6 head header hgroup hr
html i iframe image img input ins isindex kbd keygen label layer legend li line link listing main map mark
marquee math menu menuitem meta meter multicol nav nobr noembed noframes noscript object ol optgroup option
output p param path picture plaintext polygon pre progress q rb rect rp rt rtc ruby s samp script search section
select slot small source spacer span strike strong style sub summary sup svg table tbody td template text textarea
tfoot th thead time title tr track tt u ul use var video wbr xml xmp circle defs stop smarttagtype`.split(
    /\s+/,
  ),
)
export const PARAGRAPH: ReadonlySet<string> = new Set(['p'])
/** Attributes that are read; the values of all others are skipped. */
export const READ = new Set(
  'style class id hidden href xlink:href src srcset action formaction background bgcolor color colspan width height type http-equiv content alt data'.split(
    ' ',
  ),
)
