/**
 * The text of a join token: who issued it, how to reach and how to recognise it, and a secret.
 * `pj1_` and base64url of: version 1 | cluster id 8 | token id 6 | secret 20 | issuer's exchange
 * key 32 | expiry in s 4 | count 1 | addresses (family 1 | address 4 or 16 | port 2) | check 4.
 */
import { isIPv4 } from 'node:net'
import { RefusalError } from '../base/errors.ts'
import type { PeerAddress } from './contract.ts'
import { joinBytes } from './inbox.ts'
import { KEY_BYTES } from './keys.ts'
import { deriveKey, isSame, sha256 } from './seal.ts'
import { TOKEN_ID_BYTES } from './secure.ts'

export type JoinToken = {
  /** 16 hex digits. */
  readonly clusterId: string
  /** 12 hex digits. Not secret. */
  readonly id: string
  readonly secret: Uint8Array
  /** The pin: who cannot prove this key is not the issuer. */
  readonly issuer: Uint8Array
  readonly expiresMs: number
  /** Where the issuer listens for peers, at most 4. */
  readonly addresses: readonly PeerAddress[]
}

export const SECRET_BYTES = 20
export const TOKEN_ADDRESSES_MAX = 4
const PREFIX = 'pj1_'
const VERSION = 1
const CLUSTER_BYTES = 8
const CHECK_BYTES = 4
const TEXT_MAX = 400

export function writeToken(token: JoinToken): string {
  const addresses = token.addresses.slice(0, TOKEN_ADDRESSES_MAX)
  const body = joinBytes(
    Uint8Array.of(VERSION),
    bytesOf(token.clusterId),
    bytesOf(token.id),
    token.secret,
    token.issuer,
    number(Math.floor(token.expiresMs / 1_000), 4),
    Uint8Array.of(addresses.length),
    ...addresses.map(writeAddress),
  )
  const whole = joinBytes(body, sha256(body).subarray(0, CHECK_BYTES))
  return PREFIX + Buffer.from(whole).toString('base64url')
}

/** @throws RefusalError for what is no token, or not all of one; nothing of it is in the message */
export function readToken(text: string): JoinToken {
  const trimmed = text.trim()
  if (!trimmed.startsWith(PREFIX)) throw wrong('This is no join token: tokens begin with pj1_.')
  const coded = trimmed.slice(PREFIX.length)
  if (trimmed.length > TEXT_MAX || !/^[\w-]+$/.test(coded)) throw damaged()
  const whole = new Uint8Array(Buffer.from(coded, 'base64url'))
  const body = whole.subarray(0, -CHECK_BYTES)
  const check = whole.subarray(-CHECK_BYTES)
  if (!isSame(sha256(body).subarray(0, CHECK_BYTES), check)) throw damaged()
  const reader = new Reader(body)
  if (reader.number(1) !== VERSION) {
    throw wrong('This token was made by a version of postern that this one does not know.')
  }
  const token = {
    clusterId: hexOf(reader.take(CLUSTER_BYTES)),
    id: hexOf(reader.take(TOKEN_ID_BYTES)),
    secret: reader.take(SECRET_BYTES),
    issuer: reader.take(KEY_BYTES),
    expiresMs: reader.number(4) * 1_000,
  }
  const count = reader.number(1)
  if (count > TOKEN_ADDRESSES_MAX) throw damaged()
  const addresses = Array.from({ length: count }, () => readAddress(reader))
  if (!reader.isAtEnd) throw damaged()
  return { ...token, addresses }
}

/** What both sides prove to know: 32 bytes, of which nobody comes back to the secret. */
export function pskOf(clusterId: string, secret: Uint8Array): Uint8Array {
  return deriveKey(bytesOf(clusterId), secret, 'postern join')
}

function writeAddress({ host, port }: PeerAddress): Uint8Array {
  const octets = isIPv4(host) ? host.split('.').map(Number) : wordsOf(host)
  return joinBytes(
    Uint8Array.of(octets.length === 4 ? 4 : 6),
    Uint8Array.from(octets),
    number(port, 2),
  )
}

/** The 16 octets of an IPv6 address, in any of its spellings. */
function wordsOf(host: string): number[] {
  const [front = '', back] = shortForm(host).split('::')
  const words = (part = '') => (part === '' ? [] : part.split(':'))
  const [first, last] = [words(front), words(back)]
  const gap = Array.from({ length: 8 - first.length - last.length }, () => '0')
  return [...first, ...gap, ...last].flatMap((word) => {
    const value = Number.parseInt(word, 16)
    return [value >> 8, value & 255]
  })
}

/** As everybody writes it (RFC 5952), without a dotted part. */
function shortForm(host: string): string {
  return new URL(`http://[${host}]/`).hostname.slice(1, -1)
}

function readAddress(reader: Reader): PeerAddress {
  const family = reader.number(1)
  if (family !== 4 && family !== 6) throw damaged()
  const octets = reader.take(family === 4 ? 4 : 16)
  const port = reader.number(2)
  if (port === 0) throw damaged()
  if (family === 4) return { host: octets.join('.'), port }
  const words = Array.from({ length: 8 }, (_, at) =>
    (((octets[2 * at] ?? 0) << 8) | (octets[2 * at + 1] ?? 0)).toString(16),
  )
  return { host: shortForm(words.join(':')), port }
}

class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  take(length: number): Uint8Array {
    if (this.#at + length > this.#bytes.length) throw damaged()
    this.#at += length
    return this.#bytes.slice(this.#at - length, this.#at)
  }

  number(length: number): number {
    return this.take(length).reduce((value, octet) => value * 256 + octet, 0)
  }
}

function number(value: number, length: number): Uint8Array {
  const bytes = Buffer.alloc(length)
  bytes.writeUIntBE(value, 0, length)
  return new Uint8Array(bytes)
}

function bytesOf(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'))
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

function damaged(): RefusalError {
  return wrong('The token is not complete, or a character of it is wrong.')
}

function wrong(what: string): RefusalError {
  return new RefusalError(
    'invalid',
    'token',
    what,
    'Copy all of it, from pj1_ to its end, or make a new one with "postern invite".',
  )
}
