/** Attached pages and drawings: scripts that build a file on the reader's machine. */
import type { Scene } from './scene.ts'

const TEXT_BYTES_MAX = 8 * 1024 * 1024
/** A stretch of base64 that may hold a file. */
const PACKED = /[A-Za-z0-9+/]{400,}={0,2}/g
const PACKED_MAX = 20
const PACKED_BYTES_MAX = 16 * 1024 * 1024

/** Makes bytes out of text. */
const BUILDS =
  /\batob\s*\(|\bfromCharCode\b|\bUint8Array\b|\bcharCodeAt\b|\bunescape\s*\(|\bdecodeURIComponent\s*\(|\bTextDecoder\b/
/** Makes a file out of bytes. */
const FILES =
  /\bnew\s+(?:\w+\.)?(?:Blob|File)\b|\bcreateObjectURL\b|\bms(?:SaveOrOpenBlob|SaveBlob)\b|data:(?:application|text\/html)[^,"']{0,100};base64/i
/** Hands the file to the reader. */
const SAVES =
  /\bms(?:SaveOrOpenBlob|SaveBlob)\b|\.download\b|\bdownload\s*=|setAttribute\(\s*["']download|\blocation(?:\.href)?\s*=|\.replace\(|\bnavigator\b|\.click\s*\(/
/** What hidden files are. */
const CARRIED =
  /^(?:PK\x03\x04|MZ|Rar!|7z\xbc\xaf|%PDF|\xd0\xcf\x11\xe0|\x1f\x8b|L\0\0\0\x01|MSCF|<html|<!doctype|<script)/i

export function lookAtMarkup(content: Buffer, scene: Scene): void {
  const text = textOf(content)
  if (!/<script\b|\bon(?:load|error|click|mouseover)\s*=|javascript:/i.test(text)) {
    const data = /<a\b[^>]{0,500}\bhref\s*=\s*["']?data:(?!image\/)/i.test(text)
    if (data) scene.say('PAGE_DATA_LINK', 6, `${scene.path} holds a file as a link.`)
    return
  }
  const files = FILES.test(text)
  if (files && BUILDS.test(text) && SAVES.test(text))
    scene.say('PAGE_SMUGGLES', 8, `A script of ${scene.path} builds a file and saves it.`)
  else if (
    /\bdocument\.write(?:ln)?\s*\(\s*(?:unescape|atob|decodeURIComponent)\b|\beval\s*\(\s*(?:unescape|atob|String\.fromCharCode|decodeURIComponent)\b/.test(
      text,
    )
  )
    scene.say('PAGE_SMUGGLES', 8, `A script of ${scene.path} unpacks the page that is shown.`)
  let count = 0
  let left = PACKED_BYTES_MAX
  for (const [packed] of text.matchAll(PACKED)) {
    count += 1
    if (count > PACKED_MAX || left <= 0) break
    // Pictures in pages are base64 too; only the first letters are paid for.
    if (!CARRIED.test(Buffer.from(packed.slice(0, 24), 'base64').toString('latin1'))) continue
    const inside = Buffer.from(packed, 'base64')
    left -= inside.length
    scene.say('PAGE_SMUGGLES', 8, `${scene.path} carries a file in its script.`)
    scene.embed(null, 'html', inside)
  }
}

/** Drawings that run scripts when a browser shows them. */
export function lookAtDrawing(content: Buffer, scene: Scene): void {
  const text = textOf(content)
  const element = /<(?:\w{1,20}:)?(script|foreignObject|iframe|embed|object)\b/i.exec(text)?.[1]
  const event = /\son(?:load|error|click|mouseover|begin|end|focus)\s*=/i.test(text)
  const link = /href\s*=\s*["']\s*(?:javascript|data:text\/html)/i.test(text)
  if (element !== undefined && /script|iframe|embed/i.test(element))
    scene.say('DRAWING_SCRIPT', 6, `${scene.path} is a drawing with a script.`)
  else if (event || link)
    scene.say('DRAWING_SCRIPT', 6, `${scene.path} is a drawing with a script.`)
  if (
    /<!ENTITY/i.test(text.slice(0, 64 * 1024)) &&
    /&\w+;/.test(text) &&
    (text.match(/<!ENTITY/gi)?.length ?? 0) > 20
  )
    scene.say('DOCUMENT_LIMIT', 5, `${scene.path} declares entities upon entities.`)
  lookAtMarkup(content, scene)
}

function textOf(content: Buffer): string {
  const wide =
    (content[0] === 0xff && content[1] === 0xfe) || (content[0] === 0xfe && content[1] === 0xff)
  const text = content.toString('latin1', 0, TEXT_BYTES_MAX)
  return wide ? text.replace(/\0/g, '') : text
}
