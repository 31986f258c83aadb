/**
 * Links in text, and what a browser makes of them (WHATWG URL). Public suffixes by tldts: the
 * list changes every week, and the other choice would be to keep it ourselves.
 */

/** Loaded with the first host: the main process rarely asks for one. */
function parse(
  ...asked: Parameters<typeof import('tldts')['parse']>
): ReturnType<typeof import('tldts')['parse']> {
  const { parse: parsed } = require('tldts') as typeof import('tldts')
  return parsed(...asked)
}

/** Where a link leads. */
export type Target = {
  /** As a browser opens it, at most 2,000 characters. */
  readonly url: string
  /** A-labels, or an address without brackets; empty for `data:` and `javascript:`. */
  readonly host: string
  /** The domain that somebody registered, or the host where there is none. */
  readonly domain: string
}

export const URL_CHARS_MAX = 2_000

/** Schemes that open a page, run a program or take a file. */
const SCHEMES = new Set(['http:', 'https:', 'ftp:', 'data:', 'javascript:', 'vbscript:', 'file:'])
const WEB = new Set(['http:', 'https:', 'ftp:'])

/**
 * What a browser opens; null for `mailto:`, `cid:`, places in the page, and what is no link. A
 * relative one without `base` that begins with a domain is read as mail programs do, as `http`.
 */
export function openTarget(written: string, base: string | null = null): Target | null {
  const cut = written.length > URL_CHARS_MAX ? written.slice(0, URL_CHARS_MAX) : written
  const url = parsed(cut, base)
  if (url === null || !SCHEMES.has(url.protocol)) return null
  // `data:` and `javascript:` carry a page or a program of any size: its beginning tells.
  if (!WEB.has(url.protocol)) return { url: url.href.slice(0, 200), host: '', domain: '' }
  const host = trimHost(url.hostname)
  if (host === '') return null
  return { url: url.href.slice(0, URL_CHARS_MAX), host, domain: domainOf(host) }
}

function parsed(written: string, base: string | null): URL | null {
  const whole = URL.parse(written)
  if (whole !== null) return whole
  const trimmed = written.trim()
  if (trimmed === '' || trimmed.startsWith('#')) return null
  if (base !== null) return URL.parse(trimmed, base)
  if (/^[/\\]{2}/.test(trimmed)) return URL.parse(`http:${trimmed}`)
  // A scheme without a host that can be read, e.g. with blanks inside: what a careless reader sees.
  const scheme = /^[a-z][a-z0-9+.-]*:[/\\]/i.test(trimmed)
  if (scheme) return URL.parse(trimmed.replace(INVISIBLE, '').replace(/\s+/g, ''))
  const host = /^[^/?#:\\\s]+\.[^/?#:\\\s]+/.exec(trimmed)?.[0]
  return host === undefined || !isPublic(host) ? null : URL.parse(`http://${trimmed}`)
}

/** Characters that nobody sees: zero width, soft hyphen, direction. */
export const INVISIBLE =
  /\u034f|\u061c|\u17b4|\u17b5|[\u00ad\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ufe00-\ufe0f]|[\u180b-\u180d]/g

function trimHost(hostname: string): string {
  const bare = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
  return bare.endsWith('.') ? bare.slice(0, -1) : bare
}

const DOMAINS_MAX = 5_000
const domains = new Map<string, string>()

/** The registered domain of a host, below public and private suffixes; the host where there is none. */
export function domainOf(host: string): string {
  const known = domains.get(host)
  if (known !== undefined) return known
  const found = parse(host, { allowPrivateDomains: true, validateHostname: false }).domain ?? host
  if (domains.size >= DOMAINS_MAX) domains.clear()
  domains.set(host, found)
  return found
}

const suffixes = new Map<string, boolean>()

/** Ends with a suffix that the public list knows. */
function isPublic(host: string): boolean {
  const known = suffixes.get(host)
  if (known !== undefined) return known
  const { isIcann, isPrivate, domain } = parse(host, { allowPrivateDomains: true })
  const found = (isIcann === true || isPrivate === true) && domain !== null
  if (suffixes.size >= DOMAINS_MAX) suffixes.clear()
  suffixes.set(host, found)
  return found
}

/** A link that stands in text, as it stood. */
export type Written = {
  readonly written: string
  /** Nothing but a domain: some mail programs make a link of it. */
  readonly bare: boolean
  /** How it is kept from programs, for a reader to put right: null, with marks, or in words. */
  readonly spelled: 'marks' | 'words' | null
}

const FOUND_MAX = 500

/** Links in text, in order, and behind them those that are spelled out. Never throws; linear. */
export function findWritten(text: string): readonly Written[] {
  const found = findClickable(text)
  const kind = IN_MARKS.some((mark) => text.includes(mark))
    ? 'marks'
    : IN_WORDS.some((word) => text.includes(word))
      ? 'words'
      : null
  if (kind === null) return found
  const known = new Set(found.map(({ written }) => written))
  const meant = text
    .replace(/\s{0,3}[[({]\s{0,3}(?:\.|dot)\s{0,3}[\])}]\s{0,3}/gi, '.')
    .replace(/ dot (?=(?:com|net|org|info|biz|ru|xyz|top|online|site|co|io)\b)/gi, '.')
    .replace(/\bh\s?[t*]{2}\s?ps?\s{0,3}(?::|\[:\])\s{0,3}\/\s?\/\s{0,3}(?=[a-z0-9])/gi, 'http://')
  for (const each of findClickable(meant)) {
    if (!known.has(each.written)) found.push({ ...each, spelled: kind })
  }
  return found
}

const IN_MARKS = ['[.', '(.', '{.', '[:]', '[dot', '(dot', '[DOT', '(DOT']
const IN_WORDS = [' dot ', ' DOT ', 'http :', 'h ttp', 'ht tp', ': //', ':/ /', 'http: //']

function findClickable(text: string): Written[] {
  const found: (Written & { at: number })[] = []
  // Behind this a link was found already.
  const taken: number[] = []
  for (let at = text.indexOf('://'); at !== -1; at = text.indexOf('://', at + 3)) {
    if (found.length >= FOUND_MAX) break
    const before = text.slice(Math.max(0, at - 8), at)
    const scheme = /(?:https?|ftp|file|hxxps?|hxtps?|htxps?|h\*\*ps?)$/i.exec(before)?.[0]
    if (scheme === undefined) continue
    const end = linkEnd(text, at + 3)
    if (end <= at + 3) continue
    const rest = text.slice(at, end)
    const real = honest(scheme)
    found.push({
      at: at - scheme.length,
      written: real + rest,
      bare: false,
      spelled: real === scheme ? null : 'marks',
    })
    taken.push(at - scheme.length, end)
  }
  let next = 0
  for (let dot = text.indexOf('.'); dot !== -1; dot = text.indexOf('.', dot + 1)) {
    if (!isHostCode(text.charCodeAt(dot + 1)) || !isHostCode(text.charCodeAt(dot - 1))) continue
    while (next < taken.length && (taken[next + 1] ?? 0) <= dot) next += 2
    if (next < taken.length && (taken[next] ?? 0) <= dot) {
      dot = (taken[next + 1] ?? dot + 1) - 1
      continue
    }
    if (found.length >= FOUND_MAX) break
    const from = hostStart(text, dot)
    const to = hostEnd(text, dot)
    const host = text.slice(from, to)
    const ahead = text.charCodeAt(to)
    const behind = text.charCodeAt(from - 1)
    const part = behind === 64 || behind === 47 || behind === 92 || behind === 61 || ahead === 64
    if (!part && isLinkedHost(host, ahead)) {
      const path = ahead === 47 || ahead === 58 || ahead === 63
      const end = path ? linkEnd(text, to) : to
      found.push({ at: from, written: text.slice(from, end), bare: true, spelled: null })
      dot = end - 1
    } else dot = to - 1
  }
  return found
    .sort((a, b) => a.at - b.at)
    .map(({ written, bare, spelled }) => ({ written, bare, spelled }))
}

/** `hxxp` and its kin as what a reader is asked to make of them. */
function honest(scheme: string): string {
  if (!/^h(?:xx|xt|tx|\*\*)ps?$/i.test(scheme)) return scheme
  return /s$/i.test(scheme) ? 'https' : 'http'
}

function linkEnd(text: string, from: number): number {
  let end = from
  const limit = Math.min(text.length, from + URL_CHARS_MAX)
  while (end < limit && !isStop(text.charCodeAt(end))) end += 1
  // What closes a sentence or a bracket is not the link's, unless it opened there.
  for (; end > from; end -= 1) {
    const code = text.charCodeAt(end - 1)
    const open = OPENINGS[code]
    if (open !== undefined) {
      if (count(text, open, from, end) >= count(text, code, from, end)) break
    } else if (!ENDINGS.has(code)) break
  }
  return end
}

/** What opens the bracket that a character closes. */
const OPENINGS: Readonly<Record<number, number>> = { 41: 40, 93: 91, 125: 123 }

function count(text: string, code: number, from: number, to: number): number {
  let found = 0
  for (let at = from; at < to; at += 1) if (text.charCodeAt(at) === code) found += 1
  return found
}

/** `. , ; : ! ? ' * _ ~` */
const ENDINGS = new Set([...'.,;:!?\'*_~`"'].map((char) => char.charCodeAt(0)))

/** Blanks, quotes, angle brackets, and the wide characters of languages that write no blanks. */
function isStop(code: number): boolean {
  if (code <= 32 || code === 34 || code === 60 || code === 62 || code === 96) return true
  if (code < 160) return code === 127
  if (code === 160 || code === 0x2028 || code === 0x2029 || code === 0x202f) return true
  if (code < 0x2e80) return code === 0xab || code === 0xbb || (code >= 0x2018 && code <= 0x201f)
  return code !== 0x3002 && code !== 0xff61 && !(code >= 0xff0d && code <= 0xff5a)
}

function isHostCode(code: number): boolean {
  return (
    (code >= 97 && code <= 122) ||
    (code >= 48 && code <= 57) ||
    (code >= 65 && code <= 90) ||
    code === 45 ||
    code === 95 ||
    (code >= 0xc0 && code < 0x600)
  )
}

function hostStart(text: string, dot: number): number {
  let from = dot
  const limit = Math.max(0, dot - 253)
  while (from > limit) {
    const code = text.charCodeAt(from - 1)
    if (!isHostCode(code) && code !== 46) break
    from -= 1
  }
  while (from < dot && text.charCodeAt(from) === 46) from += 1
  return from
}

function hostEnd(text: string, dot: number): number {
  let to = dot + 1
  const limit = Math.min(text.length, dot + 253)
  while (to < limit) {
    const code = text.charCodeAt(to)
    if (!isHostCode(code) && code !== 46) break
    to += 1
  }
  while (text.charCodeAt(to - 1) === 46) to -= 1
  return to
}

/** Suffixes that are endings of files much more often: no link without a path or `www`. */
const FILE_LIKE = new Set(
  'ai app bz cc cf cfd gz java js la md mm mov pl pm ps pub py rs sh so st tf ts vi zip'.split(' '),
)

function isLinkedHost(host: string, ahead: number): boolean {
  const suffix = host.slice(host.lastIndexOf('.') + 1)
  if (suffix.length < 2 || /^\d/.test(suffix) || host.includes('_')) return false
  if (/^www\./i.test(host)) return isPublic(host)
  // `the end.It was` is no link: a domain begins no sentence.
  if (/^[A-Z][a-z]/.test(suffix)) return false
  if (ahead !== 47 && FILE_LIKE.has(suffix.toLowerCase())) return false
  return isPublic(host)
}

/** An address inside an address, as redirectors and trackers carry it. */
const NESTED = /https?(?::|%3a|%253a)(?:\/\/|%2f%2f|%252f%252f)[^/\s]/i
/** A token of Bing and its kin: base64 of `http`, behind two letters. */
const TOKEN = /[?&]u=a1(aHR0c[\w-]{8,1500})/
/** `google.com/amp/s/HOST/…` */
const MIRRORED = /^https?:\/\/[^/]*google\.[a-z.]{2,6}\/amp\/s\/([^/?#]+\.[^?#]*)/i
/** Proofpoint's second form: `u=https-3A__HOST_PATH`. */
const DASHED = /[?&]u=(https?-3A__[^&]+)/i

/** Where the address inside `url` leads; null: there is none. */
export function nestedTarget(url: string): Target | null {
  if (url.length < 20) return null
  const rest = url.slice(8)
  const found = NESTED.exec(rest)
  if (found !== null) {
    const before = rest.slice(0, found.index)
    const tail = rest.slice(found.index)
    // In a query it ends where the next parameter begins.
    return openTarget(unescaped(before.includes('?') ? (tail.split('&')[0] ?? tail) : tail))
  }
  const token = TOKEN.exec(url)?.[1]
  if (token !== undefined) return openTarget(Buffer.from(token, 'base64url').toString('latin1'))
  const mirrored = MIRRORED.exec(url)?.[1]
  if (mirrored !== undefined) return openTarget(`https://${mirrored}`)
  const dashed = DASHED.exec(url)?.[1]
  if (dashed === undefined) return null
  return openTarget(unescaped(dashed.replaceAll('_', '/').replace(/-(?=[0-9A-F]{2})/gi, '%')))
}

/** Escapes taken off up to twice, as long as the scheme is still hidden by them. */
function unescaped(text: string): string {
  let plain = text
  for (let round = 0; round < 2 && !/^https?:\/\//i.test(plain); round += 1) {
    plain = plain.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    )
  }
  return plain
}
