/** Reads bodies that lie on a disk, piece by piece. */
import { messageOf, StoreError } from '../base/errors.ts'
import type { Disk } from '../base/files.ts'
import { PIECE_BYTES } from '../base/limits.ts'
import type { Body } from '../message/body.ts'

/** Reads a body in chunks of at most PIECE_BYTES. @throws StoreError when bytes are missing */
export async function* readBody(body: Body, disk: Disk): AsyncGenerator<Uint8Array> {
  if (body.kind === 'memory') {
    for (let offset = 0; offset < body.bytes.length; offset += PIECE_BYTES) {
      yield body.bytes.subarray(offset, offset + PIECE_BYTES)
    }
    return
  }
  for (const { path, offset, length } of body.extents) {
    const bytes = await readExtent(disk, path, offset, length)
    if (bytes.length !== length) {
      throw new StoreError(`${path} has ${bytes.length} of ${length} bytes`, {
        remedy: 'ask-operator',
      })
    }
    yield bytes
  }
}

async function readExtent(
  disk: Disk,
  path: string,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  try {
    return await disk.read(path, offset, length)
  } catch (cause) {
    throw new StoreError(`${path} cannot be read: ${messageOf(cause)}`, {
      remedy: 'ask-operator',
      cause,
    })
  }
}
