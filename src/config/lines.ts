/** Settings that are lists of lines: how one line of each form is written, and what it says. Pure. */
import { isIPv4, isIPv6 } from 'node:net'
import type { NameServer } from '../base/dns-wire.ts'
import { RefusalError } from '../base/errors.ts'
import { parseAddress } from '../message/address.ts'
import type { Outage } from '../message/verdict.ts'

export type LineForm =
  | 'server'
  | 'list'
  | 'domain'
  | 'person'
  | 'engine'
  | 'extension'
  | 'directory'

/** Lines of one setting, and characters of one line. */
const LINES_MAX = 500
const LINE_CHARS_MAX = 1_000

export const LINE_WORDS: Readonly<Record<LineForm, string>> = {
  server: 'An address, with a port when it is not 53: 192.0.2.53, [2001:db8::53]:5353.',
  list: 'A zone and what its answers weigh: zen.example.org 127.0.0.2=4 127.0.0.10-127.0.0.11=2.',
  domain: 'A domain: example.com.',
  person:
    'A name as people read it, and the addresses that may bear it: Ada Example, ada@example.com.',
  engine:
    'A name, where it listens, and what becomes of mail that it does not answer for: clamd clamd://192.0.2.9:3310 defer. Kinds: clamd, icap, rspamd, spamd; outages: defer, hold, pass.',
  extension: 'The last part of a file name: exe.',
  directory:
    'An LDAP URL with {address} in its filter, and who asks: ldaps://dc1.example.com/ou=people,dc=example,dc=com??sub?(|(mail={address})(proxyAddresses=smtp:{address}))?bindname=cn=postern,dc=example,dc=com.',
}

/** `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`; null when it is none. */
export function parseServer(line: string): NameServer | null {
  const [, bracketed, inner, port] =
    /^(?:\[([^\]]+)\]|([^\s:]+|[0-9a-f:.]+?))(?::(\d{1,5}))?$/i.exec(line) ?? []
  if (isIPv6(line)) return { host: line.toLowerCase(), port: 53 }
  const host = bracketed ?? inner ?? ''
  const number = port === undefined ? 53 : Number(port)
  const isGood = bracketed === undefined ? isIPv4(host) : isIPv6(host)
  return isGood && isPort(number) ? { host: host.toLowerCase(), port: number } : null
}

/** A list of addresses or names in the DNS: what an answer from `from` to `to` weighs. */
export type ListZone = {
  readonly zone: string
  readonly weights: readonly {
    /** IPv4 as numbers, both included. */
    readonly from: number
    readonly to: number
    readonly score: number
  }[]
}

export function parseListZone(line: string): ListZone | null {
  const [zone = '', ...codes] = line.trim().split(/\s+/)
  if (!isDomain(zone) || codes.length === 0) return null
  const weights = codes.map((code) => {
    const [, from, to = from, score] =
      /^(\d+\.\d+\.\d+\.\d+)(?:-(\d+\.\d+\.\d+\.\d+))?=(-?\d{1,3}(?:\.\d{1,2})?)$/.exec(code) ?? []
    if (from === undefined || to === undefined || !isIPv4(from) || !isIPv4(to)) return null
    const weight = { from: numberOf(from), to: numberOf(to), score: Number(score) }
    return weight.from <= weight.to && Math.abs(weight.score) <= 100 ? weight : null
  })
  const good = weights.filter((weight) => weight !== null)
  return good.length === weights.length ? { zone: zone.toLowerCase(), weights: good } : null
}

/** The value of four octets. */
export function numberOf(ipv4: string): number {
  return ipv4.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0)
}

/** Somebody whose name others use to be believed. */
export type Person = { readonly name: string; readonly addresses: readonly string[] }

export function parsePerson(line: string): Person | null {
  const [name = '', ...addresses] = line.split(',').map((word) => word.trim())
  const isGood = name.length >= 2 && addresses.length > 0 && addresses.every(isAddress)
  return isGood ? { name, addresses: addresses.map((address) => address.toLowerCase()) } : null
}

const ENGINE_KINDS = ['clamd', 'icap', 'rspamd', 'spamd'] as const
export type EngineKind = (typeof ENGINE_KINDS)[number]

export type EngineLine = {
  /** As findings, unknowns and metrics name it: lower case letters, digits and dashes. */
  readonly name: string
  readonly kind: EngineKind
  readonly host: string
  readonly port: number
  /** Without the leading slash; the service of ICAP, else empty. */
  readonly path: string
  readonly outage: Outage
}

const ENGINE_PORTS: Readonly<Record<EngineKind, number>> = {
  clamd: 3310,
  icap: 1344,
  rspamd: 11333,
  spamd: 783,
}

export function parseEngine(line: string): EngineLine | null {
  const [, name = '', kind, bracketed, plain, port, path = '', outage = 'defer'] =
    /^([a-z][a-z0-9-]{0,30})\s+([a-z]+):\/\/(?:\[([^\]\s]+)\]|([^\s:/]+))(?::(\d{1,5}))?(?:\/(\S*))?(?:\s+(defer|hold|pass))?$/.exec(
      line.trim(),
    ) ?? []
  const known = ENGINE_KINDS.find((each) => each === kind)
  if (known === undefined) return null
  const number = port === undefined ? ENGINE_PORTS[known] : Number(port)
  const host = bracketed ?? plain ?? ''
  if (!isHost(host, bracketed !== undefined) || !isPort(number)) return null
  return { name, kind: known, host, port: number, path, outage: outage as Outage }
}

/** Where recipients are looked up (RFC 4516). */
export type DirectoryLine = {
  /** `ldap://HOST:PORT` or `ldaps://HOST:PORT`. */
  readonly url: string
  readonly base: string
  readonly scope: 'base' | 'one' | 'sub'
  /** With `{address}` (RFC 4515). */
  readonly filter: string
  /** Who asks; empty: anybody. Its password is no setting. */
  readonly bindName: string
}

export function parseDirectory(line: string): DirectoryLine | null {
  const [, protocol = '', bracketed, plain, port, rest = ''] =
    /^(ldaps?):\/\/(?:\[([^\]\s]+)\]|([^\s:/?]+))(?::(\d{1,5}))?\/(.*)$/i.exec(line.trim()) ?? []
  const host = bracketed ?? plain ?? ''
  const number =
    port === undefined ? (protocol.toLowerCase() === 'ldaps' ? 636 : 389) : Number(port)
  const [base, , scope = '', filter = '', ...extensions] = rest.split('?').map(unescaped)
  const known = (['base', 'one', 'sub'] as const).find((each) => each === (scope || 'sub'))
  const bind = extensions.find((extension) => /^!?bindname=/i.test(extension)) ?? ''
  if (!isHost(host, bracketed !== undefined) || !isPort(number)) return null
  if (base === undefined || known === undefined) return null
  if (!filter.includes('{address}') || !/^\(.*\)$/.test(filter)) return null
  return {
    url: `${protocol.toLowerCase()}://${bracketed === undefined ? host : `[${host}]`}:${number}`,
    base,
    scope: known,
    filter,
    bindName: bind.replace(/^!?bindname=/i, ''),
  }
}

/** RFC 3986 section 2.1; what is no escape stays. */
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Lower case, A-labels as they are typed; null when it is no domain. */
export function parseDomain(line: string): string | null {
  const name = line.trim().toLowerCase().replace(/\.$/, '')
  return isDomain(name) ? name : null
}

/** What may stand before a port; an IPv6 address in brackets, and nothing else there. */
function isHost(host: string, isBracketed: boolean): boolean {
  if (isBracketed) return isIPv6(host)
  return isIPv4(host) || isDomain(host) || host === 'localhost'
}

function isPort(number: number): boolean {
  return number >= 1 && number <= 65_535
}

function isDomain(text: string): boolean {
  const labels = text.split('.')
  return (
    text.length <= 253 &&
    labels.length >= 2 &&
    labels.every((label) => /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/i.test(label))
  )
}

function isAddress(text: string): boolean {
  const address = parseAddress(text)
  return address !== null && address.domain !== ''
}

/** The lines as they are kept. @throws RefusalError invalid, with `key` as its field */
export function readLines(key: string, form: LineForm, raw: readonly string[]): readonly string[] {
  const lines = [...new Set(raw.map((line) => line.trim().replace(/\s+/g, ' ')))].filter(
    (line) => line !== '',
  )
  if (lines.length > LINES_MAX) {
    throw new RefusalError(
      'invalid',
      key,
      `${lines.length} lines are too many.`,
      `Enter at most ${LINES_MAX}.`,
    )
  }
  for (const line of lines) {
    if (line.length <= LINE_CHARS_MAX && isLine(form, line)) continue
    throw new RefusalError(
      'invalid',
      key,
      `${JSON.stringify(line.slice(0, 100))} cannot be read.`,
      LINE_WORDS[form],
    )
  }
  return lines
}

function isLine(form: LineForm, line: string): boolean {
  switch (form) {
    case 'server':
      return parseServer(line) !== null
    case 'list':
      return parseListZone(line) !== null
    case 'domain':
      return parseDomain(line) !== null
    case 'person':
      return parsePerson(line) !== null
    case 'engine':
      return parseEngine(line) !== null
    case 'directory':
      return parseDirectory(line) !== null
    case 'extension':
      return /^[a-z0-9]{1,20}$/.test(line)
  }
}
