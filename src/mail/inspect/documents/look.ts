/** Documents: each kind by its own reader. What a reader cannot follow to its end is a finding. */
import type { FileFacts } from '../files.ts'
import type { Kind } from '../kinds.ts'
import { lookAtShortcut } from './lnk.ts'
import { lookAtDrawing, lookAtMarkup } from './markup.ts'
import { lookAtMime, lookAtTnef } from './mime.ts'
import { lookAtActiveMime, lookAtOle, sayDde } from './office.ts'
import { lookAtOneNote } from './onenote.ts'
import { lookAtPart } from './ooxml.ts'
import { inflate, lookAtPdf } from './pdf.ts'
import { lookAtRtf } from './rtf.ts'
import type { Scene } from './scene.ts'

type Reader = (content: Buffer, scene: Scene) => void

const READERS: Partial<Record<Kind, Reader>> = {
  html: lookAtMarkup,
  lnk: lookAtShortcut,
  mime: lookAtMime,
  ole: lookAtOle,
  onenote: lookAtOneNote,
  pdf: lookAtPdf,
  rtf: lookAtRtf,
  svg: lookAtDrawing,
  tnef: lookAtTnef,
}

const PACKED_BYTES_MAX = 16 * 1024 * 1024

/** Looks at `content` as each of `kinds`. */
export function lookAtDocument(
  file: FileFacts,
  kinds: readonly Kind[],
  content: Buffer,
  scene: Scene,
): void {
  const read = (reader: Reader): void => {
    try {
      reader(content, scene)
    } catch (error) {
      // Reads beyond the end of a buffer are what a damaged or hostile document makes.
      if (!(error instanceof RangeError)) throw error
      scene.say('DOCUMENT_UNREADABLE', 5, `${file.path} cannot be read to its end.`)
    }
  }
  for (const name of file.names) {
    if (file.within === 'ooxml') read((part, on) => lookAtPart(name, part, on))
    if (/\.(?:csv|slk|txt)[\s.]*$/i.test(name) && kinds.includes('text')) read(lookAtCells)
  }
  if (content.toString('latin1', 0, 10) === 'ActiveMime')
    read((part, on) => lookAtActiveMime(part, on, (packed) => inflate(packed, PACKED_BYTES_MAX)))
  for (const kind of kinds) {
    const reader = READERS[kind]
    if (reader !== undefined && !(kind === 'tnef' && file.depth === 0)) read(reader)
  }
}

/** Tables as text: a cell that starts a program when Excel opens it. */
function lookAtCells(content: Buffer, scene: Scene): void {
  const text = content.toString('latin1', 0, 4 * 1024 * 1024)
  if (
    /(?:^|[,;\t"])\s*[=+\-@][^\r\n|]{0,200}\b(?:cmd|powershell|msexcel|rundll32|mshta|regsvr32|certutil)(?:\.exe)?\s*\|/im.test(
      text,
    )
  )
    sayDde(scene)
}
