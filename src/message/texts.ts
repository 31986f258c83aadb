/**
 * The text of a part as readers may take it: by the charset that is declared, and by what the octets
 * look like where that is another one (UTF-7 of RFC 2152, UTF-16, ISO-2022-JP of RFC 1468, UTF-8).
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { decodeCharset } from './header.ts'
import type { Mail, Part } from './mime.ts'

/** Octets of one content that are decoded, and readings that are given. */
const TEXT_BYTES_MAX = 1024 * 1024
const TEXTS_MAX = 4

/** Text in every reading, the declared one first; at most 4 of at most 1 MB of octets each. Never throws. */
export function textsOf(mail: Mail, part: Part): readonly string[] {
  const texts: string[] = []
  for (const content of mail.contents(part)) {
    for (const text of readingsOf(content, part.charset)) {
      if (texts.length < TEXTS_MAX && !texts.includes(text)) texts.push(text)
    }
  }
  return texts
}

/** Text of `content` in each charset that it may be in, the likely one first: the declared one if there is one. */
export function readingsOf(content: Buffer, charset: string | null): readonly string[] {
  const bytes = content.length > TEXT_BYTES_MAX ? content.subarray(0, TEXT_BYTES_MAX) : content
  const label = charset?.trim() ?? ''
  const ascii = isAscii(bytes)
  const odd = ascii && (bytes.includes(0) || bytes.includes(ESCAPE))
  if (ascii && !odd && !STRANGE.test(label)) return [bytes.toString('latin1')]
  const wide = wideOf(bytes)
  const seven = SEVEN.has(label)
  const plain = label === '' || label === 'us-ascii'
  const texts = [
    seven
      ? decodeUtf7(bytes)
      : plain
        ? decodeCharset(bytes, wide ?? unsaid(bytes))
        : decodeCharset(bytes, label),
  ]
  const add = (other: string): void => {
    const text = decodeCharset(bytes, other)
    if (!texts.includes(text)) texts.push(text)
  }
  if (wide !== null) add(wide)
  if (odd && /\x1b(?:\$[@B]|\([BJI])/.test(bytes.toString('latin1'))) add('iso-2022-jp')
  // What is UTF-8 is seldom anything else.
  if (seven || (wide === null && (ascii ? UNICODE.test(label) : isUtf8(bytes)))) add('utf-8')
  return texts
}

const ESCAPE = 27

/** Charsets in which plain octets mean other characters than they do in ASCII. */
const STRANGE = /^(?:x-)?(?:utf-?7|unicode-1-1-utf-7|utf-?16|utf-?32|iso-2022|hz-|ucs-|unicode)/

const UNICODE = /^(?:utf|ucs|unicode)/

function unsaid(bytes: Buffer): string {
  return isUtf8(bytes) ? 'utf-8' : 'windows-1252'
}

/** Browsers decode it no more, mail programs do. */
const SEVEN: ReadonlySet<string> = new Set(['utf-7', 'utf7', 'unicode-1-1-utf-7', 'x-utf-7'])

/** UTF-16 by its mark, or because every other octet of the begin is NUL. */
function wideOf(bytes: Buffer): 'utf-16le' | 'utf-16be' | null {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'utf-16le'
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return 'utf-16be'
  if (bytes.length < 4) return null
  if (bytes[0] !== 0 && bytes[1] === 0 && bytes[2] !== 0 && bytes[3] === 0) return 'utf-16le'
  if (bytes[0] === 0 && bytes[1] !== 0 && bytes[2] === 0 && bytes[3] !== 0) return 'utf-16be'
  return null
}

/** RFC 2152: `+`, base64 of UTF-16BE without padding, `-`; `+-` is a plus. */
export function decodeUtf7(bytes: Buffer): string {
  return bytes
    .toString('latin1')
    .replace(/\+([A-Za-z0-9+/]*)(-?)/g, (whole, digits: string, end) => {
      if (digits === '') return end === '-' ? '+' : whole
      const wide = Buffer.from(digits, 'base64')
      let text = ''
      for (let at = 0; at + 1 < wide.length; at += 2) {
        text += String.fromCharCode(((wide[at] ?? 0) << 8) | (wide[at + 1] ?? 0))
      }
      return text
    })
}
