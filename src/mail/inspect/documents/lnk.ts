/** Windows shortcuts (MS-SHLLINK): what they start, for the operator to read. */
import { plainLine } from '../../../message/header.ts'
import type { Scene } from './scene.ts'

const HAS_LIST = 1
const HAS_INFO = 2
const UNICODE = 128
/** Name, relative path, working directory, arguments, icon: in this order, each by its flag. */
const TEXTS = [4, 8, 16, 32, 64]

export function lookAtShortcut(content: Buffer, scene: Scene): void {
  const flags = content.readUInt32LE(20)
  let at = 76
  if ((flags & HAS_LIST) !== 0) at += 2 + content.readUInt16LE(at)
  if ((flags & HAS_INFO) !== 0) at += content.readUInt32LE(at)
  const texts: string[] = []
  for (const flag of TEXTS) {
    if ((flags & flag) === 0 || at + 2 > content.length) continue
    const size = content.readUInt16LE(at) * ((flags & UNICODE) === 0 ? 1 : 2)
    const text = content.toString(
      (flags & UNICODE) === 0 ? 'latin1' : 'utf16le',
      at + 2,
      at + 2 + size,
    )
    if (flag === 8 || flag === 32) texts.push(text)
    at += 2 + size
  }
  const line = plainLine(texts.join(' ').replace(/\s+/g, ' '), 150)
  scene.say(
    'LNK_TARGET',
    2,
    `${scene.path} is a shortcut that starts ${line === '' ? 'something' : line}.`,
  )
}
