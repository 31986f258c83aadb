/** Messages as files: saved mails (eml), saved pages (mht), and `winmail.dat`. */
import { HEADER_BYTES_MAX } from '../../../base/limits.ts'
import { Mail, MIME_BOUNDS } from '../../../message/mime.ts'
import { readTnef } from '../../../message/tnef.ts'
import type { Scene } from './scene.ts'

/** Every part is a file in it. */
export function lookAtMime(content: Buffer, scene: Scene): void {
  const mail = new Mail(content, {
    ...MIME_BOUNDS,
    headerBytesMax: HEADER_BYTES_MAX,
    keptBytesMax: 0,
  })
  // A page of one part without a name is the file itself.
  for (const part of mail.leaves)
    for (const inside of mail.contents(part)) scene.embed(part.names[0] ?? null, 'mime', inside)
  if (mail.flaws.length > 0)
    scene.say(
      'DOCUMENT_MIME_FLAWED',
      4,
      `${scene.path} is a message whose parts readers see differently: ${mail.flaws[0]?.what ?? ''}`,
    )
}

/** In an archive or another file; in the message itself the walk over its parts has opened it. */
export function lookAtTnef(content: Buffer, scene: Scene): void {
  const { files, broken } = readTnef(content)
  for (const { names, content: inside } of files) scene.embed(names.at(-1) ?? null, 'tnef', inside)
  if (broken)
    scene.say('DOCUMENT_MIME_FLAWED', 4, `${scene.path} cannot be read to its end as winmail.dat.`)
}
