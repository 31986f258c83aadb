/** Documents: each kind by its own reader. What a reader cannot follow to its end is a finding. */
import type { FileFacts } from '../files.ts'
import type { Kind } from '../kinds.ts'
import { lookAtMime } from './mime.ts'
import type { Scene } from './scene.ts'

type Reader = (content: Buffer, scene: Scene) => void

const READERS: Partial<Record<Kind, Reader>> = {
  mime: lookAtMime,
}

/** Looks at `content` as each of `kinds`. */
export function lookAtDocument(
  file: FileFacts,
  kinds: readonly Kind[],
  content: Buffer,
  scene: Scene,
): void {
  for (const kind of kinds) {
    const read = READERS[kind]
    if (read === undefined) continue
    try {
      read(content, scene)
    } catch (error) {
      // Reads beyond the end of a buffer are what a damaged or hostile document makes.
      if (!(error instanceof RangeError)) throw error
      scene.say('DOCUMENT_UNREADABLE', 5, `${file.path} cannot be read to its end.`)
    }
  }
}
