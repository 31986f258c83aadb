/**
 * The file format of the spool, little endian. A segment starts with 64 bytes: `PSEG`, version
 * u32, generation u32, spoolId (16 ASCII), CRC-32 of these 28 bytes. A record: `PREC`, type u8, 3
 * zero bytes, length u32, index u32, generation u32, mid (26 ASCII, 2 zero bytes), CRC-32 of the
 * 48 bytes before it and the payload; payload; `PEND`; zeros up to a multiple of 8. A record
 * counts only with the generation of its segment: what a reused segment held before is never read.
 */
import type { MessageId, SpoolId } from '../base/ids.ts'

/** Kinds of records (design: mail.md, Names). The numbers are the file format. */
export const RECORD = {
  accept: 1,
  copy: 2,
  commit: 3,
  abort: 4,
  try: 5,
  done: 6,
  fail: 7,
  defer: 8,
  hold: 9,
  claim: 10,
  xfer: 11,
  adopt: 12,
  discard: 13,
  /** Of one message, as `holdings` of many: the mid of such a record is the first of them. */
  holders: 14,
  holdings: 15,
} as const
export type RecordType = (typeof RECORD)[keyof typeof RECORD]

/** Of a whole segment before its first record. */
export const SEGMENT_HEADER_BYTES = 64
/** Of a record before its payload. */
export const RECORD_HEADER_BYTES = 52

const SEGMENT_MAGIC = 0x47455350
const RECORD_MAGIC = 0x43455250
const RECORD_MAGIC_BYTES = Buffer.from('PREC')
const END_MAGIC = 0x444e4550
const VERSION = 1
const TRAILER_BYTES = 4

/**
 * The index of a body's records: which of several bodies of one message they belong to, and which
 * piece. Of a COMMIT the place is 0; of an ABORT 0 voids the pieces, 1 the COMMIT too. Fresh mail
 * has body 0.
 */
const PLACE_BITS = 20
export const PLACES_MAX = 1 << PLACE_BITS
export const BODIES_MAX = 1 << (32 - PLACE_BITS)

export function indexOf(body: number, place: number): number {
  return body * PLACES_MAX + place
}

export function readIndex(index: number): { readonly body: number; readonly place: number } {
  return { body: Math.floor(index / PLACES_MAX), place: index % PLACES_MAX }
}

/** One record as it was read; `payload` views the segment's bytes. */
export type StoredRecord = {
  readonly type: number
  readonly mid: MessageId
  readonly index: number
  /** Of the payload in the segment. */
  readonly offset: number
  readonly payload: Buffer
}

/** Bytes that a payload takes in a segment, all around it included. */
export function paddedLength(payloadBytes: number): number {
  return (RECORD_HEADER_BYTES + payloadBytes + TRAILER_BYTES + 7) & ~7
}

export function encodeSegmentHeader(generation: number, spoolId: SpoolId): Buffer {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES)
  header.writeUInt32LE(SEGMENT_MAGIC, 0)
  header.writeUInt32LE(VERSION, 4)
  header.writeUInt32LE(generation, 8)
  header.write(spoolId, 12, 16, 'latin1')
  header.writeUInt32LE(Bun.hash.crc32(header.subarray(0, 28)), 28)
  return header
}

/** What the first bytes of a segment file say; `blank`: never used. */
export function readSegmentHeader(
  header: Buffer,
): 'blank' | 'damaged' | 'newer' | { readonly generation: number } {
  if (header.every((octet) => octet === 0)) return 'blank'
  if (header.length < SEGMENT_HEADER_BYTES || header.readUInt32LE(0) !== SEGMENT_MAGIC)
    return 'damaged'
  if (header.readUInt32LE(28) !== Bun.hash.crc32(header.subarray(0, 28))) return 'damaged'
  if (header.readUInt32LE(4) > VERSION) return 'newer'
  return { generation: header.readUInt32LE(8) }
}

/** A record but for its generation and checksum; in `block` when the payload lies in one. */
export function encodeRecord(
  type: RecordType,
  mid: MessageId,
  index: number,
  payload: Uint8Array,
  block: ArrayBufferLike | null,
): Buffer {
  const size = paddedLength(payload.length)
  const bytes = block === null ? Buffer.allocUnsafe(size) : Buffer.from(block, 0, size)
  bytes.writeUInt32LE(RECORD_MAGIC, 0)
  bytes.writeUInt32LE(type, 4)
  bytes.writeUInt32LE(payload.length, 8)
  bytes.writeUInt32LE(index, 12)
  bytes.write(mid, 20, 26, 'latin1')
  bytes.writeUInt16LE(0, 46)
  if (block === null) bytes.set(payload, RECORD_HEADER_BYTES)
  bytes.writeUInt32LE(END_MAGIC, RECORD_HEADER_BYTES + payload.length)
  bytes.fill(0, RECORD_HEADER_BYTES + payload.length + TRAILER_BYTES)
  return bytes
}

/** Binds a record to the segment of this generation: it is complete then. */
export function bindRecord(bytes: Buffer, generation: number, payloadBytes: number): void {
  bytes.writeUInt32LE(generation, 16)
  bytes.writeUInt32LE(checksum(bytes, 0, payloadBytes), 48)
}

/**
 * The records of one generation in the bytes of a segment, in order, and the stretches between
 * them that hold none although more follows: damage. What is behind the last record is no gap.
 */
export function* readRecords(
  data: Buffer,
  generation: number,
): Generator<StoredRecord | { readonly gapAt: number; readonly bytes: number }> {
  let offset = SEGMENT_HEADER_BYTES
  let lostFrom = -1
  while (offset + RECORD_HEADER_BYTES <= data.length) {
    const record = readRecord(data, offset)
    if (record === null || data.readUInt32LE(offset + 16) !== generation) {
      if (lostFrom < 0) lostFrom = offset
      const next = data.indexOf(RECORD_MAGIC_BYTES, offset + 1)
      if (next < 0) return
      offset = next
      continue
    }
    if (lostFrom >= 0) yield { gapAt: lostFrom, bytes: offset - lostFrom }
    lostFrom = -1
    yield record
    offset += paddedLength(record.payload.length)
  }
}

/** The youngest generation of any whole record: that of a segment whose header is damaged; 0: none. */
export function youngestGeneration(data: Buffer): number {
  let youngest = 0
  for (
    let at = data.indexOf(RECORD_MAGIC_BYTES);
    at >= 0;
    at = data.indexOf(RECORD_MAGIC_BYTES, at + 1)
  ) {
    if (at + RECORD_HEADER_BYTES > data.length) break
    if (readRecord(data, at) !== null) youngest = Math.max(youngest, data.readUInt32LE(at + 16))
  }
  return youngest
}

function checksum(data: Buffer, offset: number, payloadBytes: number): number {
  const start = offset + RECORD_HEADER_BYTES
  const head = Bun.hash.crc32(data.subarray(offset, offset + 48))
  return Bun.hash.crc32(data.subarray(start, start + payloadBytes), head)
}

function readRecord(data: Buffer, offset: number): StoredRecord | null {
  if (data.readUInt32LE(offset) !== RECORD_MAGIC) return null
  const length = data.readUInt32LE(offset + 8)
  const start = offset + RECORD_HEADER_BYTES
  const end = start + length
  if (end + TRAILER_BYTES > data.length || data.readUInt32LE(end) !== END_MAGIC) return null
  if (data.readUInt32LE(offset + 48) !== checksum(data, offset, length)) return null
  return {
    type: data.readUInt32LE(offset + 4) & 0xff,
    mid: data.toString('latin1', offset + 20, offset + 46) as MessageId,
    index: data.readUInt32LE(offset + 12),
    offset: start,
    payload: data.subarray(start, end),
  }
}
