/** OneNote sections (MS-ONESTORE): the files that lie in them behind a picture to click on. */
import type { Scene } from './scene.ts'

/** FileDataStoreObject, 2.6.13. */
const FILE = Buffer.from('e716e3bd65261145a4c48d4d0b7a9eac', 'hex')
const HEAD_BYTES = 36
const FILES_MAX = 200
/** Names of files that a reader would start. */
const STARTED =
  /[\w .()-]{1,80}\.(?:bat|chm|cmd|com|cpl|exe|hta|js|jse|lnk|msi|ps1|scr|vbe|vbs|wsf)(?=\0|$)/i

export function lookAtOneNote(content: Buffer, scene: Scene): void {
  let count = 0
  for (
    let at = content.indexOf(FILE);
    at !== -1 && count < FILES_MAX;
    at = content.indexOf(FILE, at + 16)
  ) {
    count += 1
    const size = Number(content.readBigUInt64LE(at + 16))
    const file = content.subarray(at + HEAD_BYTES, at + HEAD_BYTES + Math.min(size, content.length))
    const media = /^(?:\x89PNG|\xff\xd8\xff|GIF8|BM|\x01\0\0\0.{36} EMF)/s.test(
      file.toString('latin1', 0, 48),
    )
    if (!media && file.length > 0)
      scene.say('ONENOTE_FILE', 5, `${scene.path} holds a file that is no picture.`)
    scene.embed(null, 'onenote', file)
  }
  const wide = content.toString('latin1').replace(/([\x20-\x7e])\0/g, '$1')
  const name = STARTED.exec(wide)?.[0]
  if (name !== undefined)
    scene.say('ONENOTE_PROGRAM', 8, `${scene.path} holds ${name.trim()}, which runs on a click.`)
}
