/** Old Office documents and whatever else is a compound file: macros, locks, files inside. */
import { decodeText } from '../../../message/header.ts'
import { type OfficeLock, officeLockOf } from './office-lock.ts'
import { type Ole, type OleEntry, readOle } from './ole.ts'
import { lockedScore, type Scene } from './scene.ts'
import { sheetLockOf } from './sheet-lock.ts'
import { lookAtMacros } from './vba.ts'

const STREAM_BYTES_MAX = 32 * 1024 * 1024
/** Streams that are looked at as files of their own. */
const STREAMS_MAX = 300
const EMBED_BYTES_MIN = 32

/** Class ids as they stand in files: what runs code of the machine when it is drawn or updated. */
const CLASSES: ReadonlyMap<string, string> = new Map([
  ['02ce020000000000c000000000000046', 'an equation of the editor that lets code in'],
  ['4e0900c0c5cd1110a30d00aa00601b53', 'a Shell object'],
  ['f39ca0f6c5f1cf118a1100a0c90a8049', 'a link to a program'],
])

export function lookAtOle(content: Buffer, scene: Scene): void {
  const ole = readOle(content)
  for (const { clsid, storage } of ole.entries) {
    const what = storage ? CLASSES.get(clsid) : undefined
    if (what !== undefined) scene.say('OFFICE_OBJECT', 8, `${scene.path} holds ${what}.`)
  }
  lookAtMacros(ole, scene)
  const locked = lockOf(ole)
  if (locked && !isOpened(ole, scene))
    scene.say('DOCUMENT_ENCRYPTED', lockedScore(scene.settings), `${scene.path} is encrypted.`)
  let left = STREAMS_MAX
  for (const entry of ole.entries) {
    if (entry.storage || entry.sizeBytes < EMBED_BYTES_MIN) continue
    left -= 1
    if (left < 0) {
      scene.say('DOCUMENT_LIMIT', 5, `${scene.path} holds more than ${STREAMS_MAX} streams.`)
      break
    }
    lookAtStream(ole, entry, locked, scene)
  }
  const [flaw] = ole.broken
  if (flaw !== undefined)
    scene.say('DOCUMENT_UNREADABLE', 5, `${scene.path} cannot be read to its end: ${flaw}`)
}

function lookAtStream(ole: Ole, entry: OleEntry, locked: boolean, scene: Scene): void {
  const name = entry.name.toLowerCase()
  if (/(?:^|\/)vba\//i.test(entry.path)) return
  const content = entry.read(STREAM_BYTES_MAX)
  if ((name === 'workbook' || name === 'book') && !locked) lookAtSheets(content, scene)
  if (name === 'worddocument' && !locked) lookAtFields(content, scene)
  if (name === '\u0001ole10native') {
    const file = packageIn(content.subarray(4))
    scene.say('OFFICE_EMBEDS', 1, `${scene.path} holds the file ${file?.name ?? 'without a name'}.`)
    if (file !== null) scene.embed(file.name, 'ole', file.content)
    return
  }
  if (name.startsWith('__substg1.0_3701')) scene.embed(attachedName(ole, entry), 'ole', content)
  else scene.embed(null, 'ole', content)
}

/** Of Outlook's messages (MS-OXMSG): the long name, or the short one, beside the content. */
function attachedName({ entries }: Ole, { path, name }: OleEntry): string | null {
  const folder = path.slice(0, -name.length)
  for (const tag of ['3707001f', '3704001f', '3707001e', '3704001e']) {
    const found = entries.find(
      (entry) => entry.path.toLowerCase() === `${folder}__substg1.0_${tag}`.toLowerCase(),
    )
    if (found !== undefined)
      return decodeText(found.read(1_000).toString(tag.endsWith('f') ? 'utf16le' : 'latin1'))
  }
  return null
}

/** A file as the packager wraps it: label, path, temporary path, content. */
export function packageIn(
  bytes: Buffer,
): { readonly name: string; readonly content: Buffer } | null {
  let at = 2
  const texts: string[] = []
  const text = (): void => {
    const end = bytes.subarray(at, at + 2_000).indexOf(0)
    if (end === -1) return
    texts.push(bytes.toString('latin1', at, at + end))
    at += end + 1
  }
  text()
  text()
  at += 8
  text()
  if (texts.length < 3 || at + 4 > bytes.length) return null
  const size = bytes.readUInt32LE(at)
  const [label = '', path = ''] = texts
  return { name: label === '' ? path : label, content: bytes.subarray(at + 4, at + 4 + size) }
}

/** Word and Excel before 2007 mark their own locks; later ones wrap the whole. */
function lockOf({ entries }: Ole): boolean {
  for (const entry of entries) {
    const name = entry.name.toLowerCase()
    if (name === 'encryptedpackage' || name === 'encryptedsummary') return true
    if (name === 'worddocument') {
      const head = entry.read(64)
      if (head.length >= 12 && ((head[11] ?? 0) & 1) === 1) return true
    }
    if (name === 'workbook' && [...records(entry.read(64 * 1024))].some(({ id }) => id === 0x2f))
      return true
  }
  return false
}

/** First record of a workbook. */
const BOF = 0x809
/** Excel tries it by itself, and asks nobody. */
const DEFAULT_PASSWORD = 'VelvetSweatshop'

/** Hands on what lies behind the lock, where a password opens it. */
function isOpened(ole: Ole, scene: Scene): boolean {
  const lock = wholeLockOf(ole) ?? workbookLockOf(ole)
  const opened = (password: string): boolean => {
    const plain = lock !== null && scene.rounds(lock.rounds) ? lock.open(password) : null
    if (plain === null) return false
    // Nothing but a workbook begins with its first record.
    if (plain.length >= 2 && plain.readUInt16LE(0) === BOF) lookAtSheets(plain, scene)
    scene.embed(null, 'ole', plain)
    return true
  }
  if (opened(DEFAULT_PASSWORD)) {
    scene.say(
      'DOCUMENT_DEFAULT_PASSWORD',
      2,
      `${scene.path} is encrypted with the password that Excel tries by itself: only scanners are locked out.`,
    )
    return true
  }
  if (lock === null || !scene.guesses().some(opened)) return false
  scene.say(
    'DOCUMENT_PASSWORD_IN_MAIL',
    3,
    `${scene.path} is encrypted, and its password stands in the mail or is a common one.`,
  )
  return true
}

function wholeLockOf({ entries }: Ole): OfficeLock | null {
  const [info, packed] = ['encryptioninfo', 'encryptedpackage'].map((name) =>
    entries.find((entry) => entry.name.toLowerCase() === name),
  )
  return info === undefined || packed === undefined || packed.sizeBytes > STREAM_BYTES_MAX
    ? null
    : officeLockOf(info.read(STREAM_BYTES_MAX), packed.read(STREAM_BYTES_MAX))
}

function workbookLockOf({ entries }: Ole): OfficeLock | null {
  const workbook = entries.find(({ name }) => name.toLowerCase() === 'workbook')
  return workbook === undefined || workbook.sizeBytes > STREAM_BYTES_MAX
    ? null
    : sheetLockOf(workbook.read(STREAM_BYTES_MAX))
}

type Record = { readonly id: number; readonly data: Buffer }

/** Records of BIFF (MS-XLS 2.1.4). */
function* records(stream: Buffer): Generator<Record> {
  for (let at = 0, count = 0; at + 4 <= stream.length && count < 500_000; count += 1) {
    const end = at + 4 + stream.readUInt16LE(at + 2)
    yield { id: stream.readUInt16LE(at), data: stream.subarray(at + 4, end) }
    at = end
  }
}

/** Macro sheets of Excel 4, and names that Excel runs on opening. */
function lookAtSheets(stream: Buffer, scene: Scene): void {
  let sheets = 0
  let auto = false
  for (const { id, data } of records(stream)) {
    // BOUNDSHEET: the sixth byte is the kind of the sheet.
    if (id === 0x85 && data[5] === 1) sheets += 1
    // NAME: built in, and number 1 or 2: Auto_Open, Auto_Close.
    if (id === 0x18 && data.length > 15 && ((data[0] ?? 0) & 0x20) !== 0) {
      const place = data[14] === 0 ? 15 : 14
      if (data[place] === 1 || data[place] === 2) auto = true
    }
  }
  sayMacroSheets(sheets, auto, scene)
}

export function sayMacroSheets(sheets: number, auto: boolean, scene: Scene): void {
  if (sheets === 0) return
  const policy = scene.settings['content.macros']
  scene.say(
    'OFFICE_MACRO_SHEET',
    policy === 'pass' ? 0 : auto && policy === 'hold' ? 8 : 5,
    `${scene.path} holds a macro sheet of Excel 4${auto ? ' that runs by itself' : ''}.`,
  )
}

/** Field codes of Word that start programs; its text is Latin or UTF-16. */
function lookAtFields(stream: Buffer, scene: Scene): void {
  if (!stream.includes('DDE') && !stream.includes(Buffer.from('DDE', 'utf16le'))) return
  const text = stream.toString('latin1').replace(/\0/g, '')
  if (/\x13\s*DDE(?:AUTO)?\s/i.test(text)) sayDde(scene)
}

export function sayDde(scene: Scene): void {
  scene.say('OFFICE_DDE', 8, `${scene.path} has a field that starts a program (DDE).`)
}

const ACTIVE_MIME_AT = [0x32, 0x22a]

/** `ActiveMime`: a compound file packed for saved pages. */
export function lookAtActiveMime(
  content: Buffer,
  scene: Scene,
  inflate: (packed: Buffer) => Buffer | null,
): void {
  for (const at of ACTIVE_MIME_AT) {
    const inside = inflate(content.subarray(at))
    if (inside !== null) {
      scene.embed(null, 'ole', inside)
      return
    }
  }
}
