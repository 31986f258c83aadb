/** Mailbox and path: parse and normalise (RFC 5321 section 4.1.2, RFC 6531). Pure. */
import { domainToASCII } from 'node:url'
import { DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX, PATH_BYTES_MAX } from '../base/limits.ts'

export type Address = {
  /** As written, quotes included, case kept. */
  readonly local: string
  /** Lower case, A-labels; `[192.0.2.1]` for a literal; empty for a bare local part. */
  readonly domain: string
  /** As written, without a source route: what goes to the next hop. */
  readonly text: string
  /** Needs SMTPUTF8 (RFC 6531). */
  readonly isUtf8: boolean
}

const ATOM =
  /^[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\u{10ffff}]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\u{10ffff}]+)*$/u
const QUOTED = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\u{10ffff}]|\\[\x20-\x7e])*"$/u
const LABELS =
  /^(?=.{1,255}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/
const LITERAL =
  /^\[(?:\d{1,3}(?:\.\d{1,3}){3}|IPv6:[0-9a-f:.]{2,45}|[a-z0-9-]*[a-z0-9]:[\x21-\x5a\x5e-\x7e]+)\]$/i

/**
 * Reads `<path>` at the start of `text`: `<>`, `<local@domain>`, with a source route that is
 * dropped (RFC 5321 appendix F.2). Gives the address, null for the null path, and what follows
 * the bracket; the whole is null when it is no path. Never throws.
 */
export function readPath(
  text: string,
): { readonly address: Address | null; readonly rest: string } | null {
  if (!text.startsWith('<')) return null
  const end = closingBracket(text)
  if (end < 0) return null
  const inner = text.slice(1, end)
  const rest = text.slice(end + 1)
  if (inner === '') return { address: null, rest }
  const address = parseAddress(stripRoute(inner))
  return address === null ? null : { address, rest }
}

/** `local@domain` or a bare local part; null when it is neither. */
export function parseAddress(text: string): Address | null {
  if (Buffer.byteLength(text) > PATH_BYTES_MAX + DOMAIN_BYTES_MAX) return null
  const at = splitAt(text)
  const local = at < 0 ? text : text.slice(0, at)
  const written = at < 0 ? '' : text.slice(at + 1)
  if (Buffer.byteLength(local) > LOCAL_PART_BYTES_MAX) return null
  if (!ATOM.test(local) && !QUOTED.test(local)) return null
  const domain = at < 0 ? '' : normaliseDomain(written)
  if (domain === null) return null
  return { local, domain, text, isUtf8: hasNonAscii(text) }
}

/**
 * Addresses in a From field as it stands, octets as Latin-1 (RFC 5322 section 3.4): in lower case,
 * at most `most`. Display names, comments and encoded words are not looked at: a name that looks
 * like an address is none. Never throws.
 */
export function addressesIn(field: string, most: number): readonly string[] {
  const text = Buffer.from(field, 'latin1').toString('utf8')
  const found = new Set<string>()
  for (const element of elementsOf(text)) {
    // Without brackets it is an address alone, or the last of a group (RFC 6854) that has a name.
    const bare = [`<${element.slice(element.lastIndexOf(':') + 1)}>`]
    for (const path of element.match(/<[^<>]*>/g) ?? bare) {
      const address = readPath(path.replace(/\s+/g, ''))?.address ?? null
      if (address === null || address.domain === '') continue
      if (found.size < most) found.add(`${address.local.toLowerCase()}@${address.domain}`)
    }
  }
  return [...found]
}

/** The parts between commas and semicolons, without comments and quoted names. */
function elementsOf(text: string): readonly string[] {
  const elements: string[] = []
  let element = ''
  let quoted = ''
  let depth = 0
  for (let index = 0; index < text.length; index++) {
    const char = text[index] ?? ''
    if (quoted !== '') {
      quoted += char
      if (char === '\\') quoted += text[++index] ?? ''
      else if (char === '"') {
        // A quoted local part stays: it stands before an @.
        element += text[index + 1] === '@' ? quoted : ' '
        quoted = ''
      }
    } else if (char === '"' && depth === 0) quoted = char
    else if (char === '(') depth += 1
    else if (char === ')' && depth > 0) depth -= 1
    else if (depth === 0 && (char === ',' || char === ';')) {
      elements.push(element)
      element = ''
    } else if (depth === 0) element += char
  }
  // What is not closed hides nothing: other readers take it as it stands.
  return quoted === '' && depth === 0 ? [...elements, element] : text.split(/[,;]/)
}

/** Lower case A-labels without a trailing dot, or a literal as it stands; null when it is none. */
export function normaliseDomain(text: string): string | null {
  if (text.startsWith('[')) return LITERAL.test(text) ? text.toLowerCase() : null
  if (text.length > DOMAIN_BYTES_MAX) return null
  const lower = hasNonAscii(text) ? domainToASCII(text) : text.toLowerCase()
  return LABELS.test(lower) ? lower : null
}

/** A local part that another system may read as an address of its own (faults.md D01 to D16). */
export function hidesRoute(local: string): boolean {
  return /[%!@]/.test(local)
}

export function hasNonAscii(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    if (text.charCodeAt(index) > 0x7f) return true
  }
  return false
}

/** The bracket that closes the path: not one inside quotes. */
function closingBracket(text: string): number {
  let quoted = false
  for (let index = 1; index < text.length; index++) {
    const char = text[index]
    if (char === '\\' && quoted) index += 1
    else if (char === '"') quoted = !quoted
    else if (char === '>' && !quoted) return index
  }
  return -1
}

/** The last `@` outside quotes, or -1. */
function splitAt(text: string): number {
  let quoted = false
  let found = -1
  for (let index = 0; index < text.length; index++) {
    const char = text[index]
    if (char === '\\' && quoted) index += 1
    else if (char === '"') quoted = !quoted
    else if (char === '@' && !quoted) found = index
  }
  return found
}

/** `@a,@b:user@host` names hosts to go through; they are ignored, as RFC 5321 asks. */
function stripRoute(path: string): string {
  if (!path.startsWith('@')) return path
  const colon = path.indexOf(':', path.startsWith('@[') ? path.indexOf(']') : 0)
  return colon < 0 ? path : path.slice(colon + 1)
}

/** What stands behind the last `@`, in lower case; empty without one. */
export function domainIn(address: string): string {
  return address.includes('@') ? address.slice(address.lastIndexOf('@') + 1).toLowerCase() : ''
}
