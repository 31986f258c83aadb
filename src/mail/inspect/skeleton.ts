/**
 * What a name looks like, whatever it is made of (the idea of Unicode TS 39 section 4, with the
 * letters that domains and display names are forged with).
 */

/** Letters that look like the Latin one before the colon, in lower case. */
const ALIKE = [
  'a:аαɑ',
  'b:ьƅ',
  'c:сϲⅽ',
  'd:ԁɗⅾ',
  'e:еєҽ',
  'f:ƒϝ',
  'g:ɡց',
  'h:һհ',
  'i:іιıɩ',
  'j:јϳ',
  'k:кκ',
  'l:ӏⅼ|ǀ1',
  'm:мⅿ',
  'n:пηո',
  'o:оοσօ0',
  'p:рρ',
  'q:ԛգ',
  'r:г',
  's:ѕꜱ',
  't:тτ',
  'u:υսц',
  'v:νѵⅴ',
  'w:ԝωա',
  'x:хχⅹ',
  'y:уγү',
  'z:ᴢ',
]

const LETTERS = new Map<string, string>()
for (const line of ALIKE) {
  for (const char of line.slice(2)) if (!LETTERS.has(char)) LETTERS.set(char, line[0] ?? '')
}
const FOREIGN = new RegExp(
  `[${[...LETTERS.keys()].map((char) => `\\u{${char.codePointAt(0)?.toString(16)}}`).join('')}]`,
  'gu',
)

/**
 * Names of equal skeletons look alike: `paypa1`, `раураl` and `PayPal` have one. Lower case ASCII
 * where all letters are known; accents are dropped.
 */
export function skeletonOf(name: string): string {
  const plain = /^[\x20-\x7e]*$/.test(name)
    ? name.toLowerCase()
    : name.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  return plain
    .replace(FOREIGN, (char) => LETTERS.get(char) ?? char)
    .replaceAll('rn', 'm')
    .replaceAll('vv', 'w')
    .replaceAll('cl', 'd')
    .replace(/[il]/g, 'l')
}

/** Latin with Cyrillic, Greek or another look-alike script in one word; of honest names none. */
export function mixesScripts(word: string): boolean {
  if (/^[\x00-\x7f]*$/.test(word)) return false
  const latin = /\p{Script=Latin}/u.test(word)
  const cyrillic = /\p{Script=Cyrillic}/u.test(word)
  const greek = /\p{Script=Greek}/u.test(word)
  const others = /[\p{Script=Armenian}\p{Script=Cherokee}\p{Script=Coptic}\p{Script=Lisu}]/u.test(
    word,
  )
  return Number(latin) + Number(cyrillic) + Number(greek) + Number(others) > 1
}

/** One letter added, left out, changed, or two neighbours swapped. */
export function isOneApart(a: string, b: string): boolean {
  if (a === b || Math.abs(a.length - b.length) > 1) return false
  const [long, short] = a.length >= b.length ? [a, b] : [b, a]
  let from = 0
  while (from < short.length && long[from] === short[from]) from += 1
  if (long.length > short.length) return long.slice(from + 1) === short.slice(from)
  if (long.slice(from + 1) === short.slice(from + 1)) return true
  return (
    long[from] === short[from + 1] &&
    long[from + 1] === short[from] &&
    long.slice(from + 2) === short.slice(from + 2)
  )
}
