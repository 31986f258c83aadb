/** Where the bytes of a message lie: in memory, or in pieces of files. */

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
