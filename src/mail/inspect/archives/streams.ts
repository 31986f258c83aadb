/** Single files packed as streams, by the decoders of the runtime: gzip, brotli. */
import { brotliDecompressSync, gunzipSync } from 'node:zlib'

/**
 * The unpacked content, its checksum good; null when it is larger than `bytesMax`, or cannot be
 * unpacked to its end: then 7-Zip tells which, piece by piece.
 */
export function gunzipWhole(packed: Buffer, bytesMax: number): Buffer | null {
  // A member of 20 bytes each would cost more than what they hold.
  if (membersOf(packed) > MEMBERS_MAX) return null
  // The end says how much it is (RFC 1952 section 2.3.1); who lies is found out below.
  if (packed.length < 18 || packed.readUInt32LE(packed.length - 4) > bytesMax) return null
  return whole(() => gunzipSync(packed, { maxOutputLength: bytesMax }))
}

/** As gunzipWhole; there is no signature, so only a name says that it is brotli. */
export function unbrotliWhole(packed: Buffer, bytesMax: number): Buffer | null {
  return whole(() => brotliDecompressSync(packed, { maxOutputLength: bytesMax }))
}

/** Members of one gzip file: honest writers make one, or one a block of a log. */
export const MEMBERS_MAX = 10_000

const MEMBER = Buffer.from('\x1f\x8b\x08', 'latin1')

/** Places where a member may begin, counted to one above the bound. */
export function membersOf(packed: Buffer): number {
  let count = 0
  for (let at = packed.indexOf(MEMBER); at !== -1; at = packed.indexOf(MEMBER, at + 3)) {
    count += 1
    if (count > MEMBERS_MAX) break
  }
  return count
}

/** The name that the header keeps of the file; null when there is none (RFC 1952 section 2.3). */
export function nameInGzip(packed: Buffer): string | null {
  const flags = packed[3] ?? 0
  if ((flags & 8) === 0) return null
  const from = 10 + ((flags & 4) === 0 || packed.length < 12 ? 0 : 2 + packed.readUInt16LE(10))
  const end = packed.subarray(from, from + 1_000).indexOf(0)
  return end <= 0 ? null : packed.toString('latin1', from, from + end)
}

function whole(run: () => Buffer): Buffer | null {
  try {
    return run()
  } catch {
    return null
  }
}
