/**
 * What members tell each other of who lives: one letter, inside a datagram (packet.ts) or as the
 * body of MESSAGE.gossip where datagrams do not pass.
 *
 *     incarnation 6 | heard 1 | items: kind 1, length 1, content
 *
 * Numbers are big-endian. Items of an unknown kind, and what a later version adds at the end of a
 * known one, are skipped.
 */
import { assert } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'

/** A datagram of 1,200 bytes less what packet.ts puts around. */
export const LETTER_BYTES_MAX = 1_138
/** The count of starts (32 bits), then of accusations refuted since (16 bits). */
export const INCARNATION_MAX = 2 ** 48 - 1

/** How a letter goes: as a datagram, or by the link. */
export type Plane = 'udp' | 'tcp'

/** 16 hex digits, random: an answer that repeats it was made after the question. */
export type ProbeId = string

/** What one end says of a way to another: null is not known, ms null is not measured. */
export type Way = { readonly works: boolean | null; readonly ms: number | null }

/** What somebody says of somebody else; `suspect` can be refuted by a higher incarnation. */
export type Word = {
  readonly kind: 'alive' | 'suspect'
  readonly node: NodeId
  readonly incarnation: number
}

export type Item =
  | { readonly kind: 'ping' | 'ack' | 'nack'; readonly probe: ProbeId }
  /** Please ping `target` for me, and say `ack` or `nack` with my probe's id. */
  | { readonly kind: 'ask'; readonly probe: ProbeId; readonly target: NodeId }
  | Word
  /** The sender's ways to the members number `first` and after, in the order of their ids. */
  | {
      readonly kind: 'links'
      /** Of all members; without the same roster the numbers mean nothing. */
      readonly rosterHash: number
      readonly first: number
      readonly links: readonly { readonly tcp: Way; readonly udp: Way }[]
    }

export type Letter = {
  /** The sender's own. */
  readonly incarnation: number
  /** The sender lately heard the receiver: by datagram, by link. */
  readonly heard: { readonly udp: boolean; readonly tcp: boolean }
  readonly items: readonly Item[]
}

const KINDS = { ping: 1, ack: 2, nack: 3, ask: 4, alive: 5, suspect: 6, links: 7 } as const

const HEARD_UDP = 1
const HEARD_TCP = 2
const LINKS_MAX = 120

export function encodeLetter({ incarnation, heard, items }: Letter): Uint8Array {
  const bytes = Buffer.alloc(LETTER_BYTES_MAX)
  bytes.writeUIntBE(incarnation, 0, 6)
  bytes[6] = (heard.udp ? HEARD_UDP : 0) | (heard.tcp ? HEARD_TCP : 0)
  let at = 7
  for (const item of items) {
    bytes[at] = KINDS[item.kind]
    const length = writeItem(bytes, at + 2, item)
    bytes[at + 1] = length
    at += 2 + length
  }
  return new Uint8Array(bytes.buffer, bytes.byteOffset, at)
}

/** Bytes of the content; it throws when there is no room, which is a mistake of the caller. */
function writeItem(bytes: Buffer, at: number, item: Item): number {
  switch (item.kind) {
    case 'ping':
    case 'ack':
    case 'nack':
      writeHex(bytes, at, item.probe)
      return 8
    case 'ask':
      writeHex(bytes, at, item.probe)
      writeHex(bytes, at + 8, item.target)
      return 16
    case 'alive':
    case 'suspect':
      writeHex(bytes, at, item.node)
      bytes.writeUIntBE(item.incarnation, at + 8, 6)
      return 14
    case 'links': {
      assert(item.links.length <= LINKS_MAX, 'the length of an item fits an octet')
      bytes.writeUInt32BE(item.rosterHash, at)
      bytes.writeUInt16BE(item.first, at + 4)
      for (const [index, { tcp, udp }] of item.links.entries()) {
        bytes.writeUInt8(octetOf(tcp), at + 6 + 2 * index)
        bytes.writeUInt8(octetOf(udp), at + 7 + 2 * index)
      }
      return 6 + 2 * item.links.length
    }
  }
}

function writeHex(bytes: Buffer, at: number, text: string): void {
  assert(bytes.write(text, at, 8, 'hex') === 8, 'an id has 16 hex digits')
}

/** Null: not a letter. */
export function decodeLetter(letter: Uint8Array): Letter | null {
  if (letter.length < 7 || letter.length > LETTER_BYTES_MAX) return null
  const bytes = Buffer.from(letter.buffer, letter.byteOffset, letter.length)
  const heard = bytes.readUInt8(6)
  const items: Item[] = []
  let at = 7
  while (at < bytes.length) {
    if (at + 2 > bytes.length) return null
    const length = bytes.readUInt8(at + 1)
    const end = at + 2 + length
    if (end > bytes.length) return null
    const item = readItem(bytes.readUInt8(at), bytes.subarray(at + 2, end))
    if (item === null) return null
    if (item !== 'unknown') items.push(item)
    at = end
  }
  return {
    incarnation: bytes.readUIntBE(0, 6),
    heard: { udp: (heard & HEARD_UDP) !== 0, tcp: (heard & HEARD_TCP) !== 0 },
    items,
  }
}

function readItem(number: number, content: Buffer): Item | 'unknown' | null {
  switch (number) {
    case KINDS.ping:
      return content.length < 8 ? null : { kind: 'ping', probe: readHex(content, 0) }
    case KINDS.ack:
      return content.length < 8 ? null : { kind: 'ack', probe: readHex(content, 0) }
    case KINDS.nack:
      return content.length < 8 ? null : { kind: 'nack', probe: readHex(content, 0) }
    case KINDS.ask:
      if (content.length < 16) return null
      return { kind: 'ask', probe: readHex(content, 0), target: readHex(content, 8) as NodeId }
    case KINDS.alive:
      return readWord('alive', content)
    case KINDS.suspect:
      return readWord('suspect', content)
    case KINDS.links:
      return readLinks(content)
    default:
      return 'unknown'
  }
}

function readWord(kind: Word['kind'], content: Buffer): Word | null {
  if (content.length < 14) return null
  return { kind, node: readHex(content, 0) as NodeId, incarnation: content.readUIntBE(8, 6) }
}

function readLinks(content: Buffer): Item | null {
  if (content.length < 6) return null
  const links: { tcp: Way; udp: Way }[] = []
  for (let at = 6; at + 2 <= content.length; at += 2) {
    links.push({ tcp: wayOf(content.readUInt8(at)), udp: wayOf(content.readUInt8(at + 1)) })
  }
  return {
    kind: 'links',
    rosterHash: content.readUInt32BE(0),
    first: content.readUInt16BE(4),
    links,
  }
}

function readHex(content: Buffer, at: number): string {
  return content.toString('hex', at, at + 8)
}

/** 0: not known; 1: no; 2: yes; from 3 on yes with a time, in steps of 5 % from 0.1 ms to 21 s. */
function octetOf({ works, ms }: Way): number {
  if (works === null) return 0
  if (!works) return 1
  if (ms === null) return 2
  const steps = Math.round(Math.log(Math.max(ms, 0.1) / 0.1) / Math.log(1.05))
  return Math.min(255, 3 + steps)
}

function wayOf(octet: number): Way {
  if (octet === 0) return { works: null, ms: null }
  if (octet === 1) return { works: false, ms: null }
  if (octet === 2) return { works: true, ms: null }
  return { works: true, ms: Math.round(0.1 * 1.05 ** (octet - 3) * 10) / 10 }
}
