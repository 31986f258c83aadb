/** Where the bytes of a message lie: in memory, or in pieces of files. */
import type { Cut } from './verdict.ts'

/** `length` bytes at `offset` of the file `path`. */
export type Extent = { readonly path: string; readonly offset: number; readonly length: number }

/**
 * The canonical bytes after DATA: CRLF line ends only, dots not stuffed, no NUL. They are the
 * bytes that were hashed and inspected and exactly those that go out.
 */
export type Body =
  | { readonly kind: 'memory'; readonly bytes: Uint8Array }
  | { readonly kind: 'extents'; readonly extents: readonly Extent[]; readonly sizeBytes: number }

export function bodySize(body: Body): number {
  return body.kind === 'memory' ? body.bytes.length : body.sizeBytes
}

/** The body less the octets of `cuts`, which are in order and apart. What lies behind its end is nothing. */
export function withoutCuts(body: Body, cuts: readonly Cut[]): Body {
  const sizeBytes = bodySize(body)
  const kept: (readonly [from: number, to: number])[] = []
  let at = 0
  for (const [offset, length] of cuts) {
    if (offset > at) kept.push([at, Math.min(offset, sizeBytes)])
    at = Math.min(Math.max(at, offset + length), sizeBytes)
  }
  if (at === 0) return body
  if (at < sizeBytes) kept.push([at, sizeBytes])
  if (body.kind === 'memory') {
    const { bytes } = body
    return {
      kind: 'memory',
      bytes: Buffer.concat(kept.map(([from, to]) => bytes.subarray(from, to))),
    }
  }
  const extents = kept.flatMap(([from, to]) => extentsFrom(body.extents, from, to))
  return {
    kind: 'extents',
    extents,
    sizeBytes: kept.reduce((sum, [from, to]) => sum + to - from, 0),
  }
}

function extentsFrom(extents: readonly Extent[], from: number, to: number): readonly Extent[] {
  let before = 0
  return extents.flatMap(({ path, offset, length }) => {
    const start = Math.max(from - before, 0)
    const end = Math.min(to - before, length)
    before += length
    return start < end ? [{ path, offset: offset + start, length: end - start }] : []
  })
}
