/** Visual Basic in documents (MS-OVBA): the source of the macros, and what in it runs by itself. */
import type { Ole, OleEntry } from './ole.ts'
import type { Scene } from './scene.ts'

/** Source of all modules of one project. */
const SOURCE_BYTES_MAX = 4 * 1024 * 1024
const MODULE_BYTES_MAX = 16 * 1024 * 1024
const MODULES_MAX = 500

/** Procedures that Office calls without being asked. */
const BY_ITSELF =
  /\b(?:auto_?(?:open|exec|close|new|exit)|document_?(?:open|new|close|beforeclose|change)|workbook_(?:open|activate|beforeclose|close|deactivate|windowactivate)|app_(?:documentopen|workbookopen)|presentation_?open|slide_?show(?:begin)?|onslideshowpagechange|\w+_(?:painted|layout|beforenavigate2|onconnecting))\b/i

/** Calls by which macros reach for the machine. */
const HOSTILE =
  /\b(?:wscript\.shell|shell\.application|shellexecute[aw]?|urldownloadtofile[aw]?|virtualalloc(?:ex)?|rtlmovememory|createthread|createprocess[aw]?|msxml2\.(?:server)?xmlhttp|winhttp\.winhttprequest|adodb\.stream|powershell|mshta|rundll32|regsvr32|certutil|bitsadmin|winmgmts|win32_process|cmd(?:\.exe)? \/[ck]|comspec|macscript|applescripttask)\b|\bshell\s*[( ]\s*["\w]/i

/** True when the file holds macros; says what they are. */
export function lookAtMacros(ole: Ole, scene: Scene): boolean {
  const project = ole.entries.find(
    ({ name, storage }) => !storage && name.toLowerCase() === '_vba_project',
  )
  const modules = modulesOf(ole)
  if (project === undefined && modules.length === 0) return false
  const sources: string[] = []
  let left = SOURCE_BYTES_MAX
  let hollow = false
  for (const { stream, offset } of modules.slice(0, MODULES_MAX)) {
    const bytes = stream.read(MODULE_BYTES_MAX)
    const at = offset !== null && bytes[offset] === 1 ? offset : sourceAt(bytes)
    const source = at === null ? Buffer.of() : decompress(bytes.subarray(at), left)
    left -= source.length
    // Compiled code and no source: the source was wiped, and Office runs the code all the same.
    if (source.length < 8 && (offset ?? bytes.length) > 600) hollow = true
    sources.push(source.toString('latin1'))
  }
  tell(sources.join('\n'), project?.read(MODULE_BYTES_MAX) ?? Buffer.of(), hollow, scene)
  return true
}

function tell(source: string, compiled: Buffer, hollow: boolean, scene: Scene): void {
  const policy = scene.settings['content.macros']
  // Every document of a program that has macros has empty modules; they do nothing.
  const empty = !/\b(?:sub|function|property)\s+\w/i.test(source) && !hollow
  const names = compiled.toString('latin1')
  const secret = [BY_ITSELF, HOSTILE].map((pattern) => pattern.exec(names)?.[0])
  const stomped = secret.find(
    (word) => word !== undefined && !source.toLowerCase().includes(word.toLowerCase()),
  )
  if (hollow || stomped !== undefined) {
    scene.say(
      'OFFICE_MACROS_HIDDEN',
      8,
      `${scene.path} holds compiled macros whose source was taken away${stomped === undefined ? '' : ` (${stomped})`}.`,
    )
  }
  if (empty) return
  const auto = BY_ITSELF.exec(source)?.[0]
  const hostile = HOSTILE.exec(source)?.[0]
  if (auto !== undefined)
    scene.say(
      'OFFICE_MACROS_RUN',
      policy === 'hold' ? 8 : policy === 'score' ? 4 : 0,
      `${scene.path} holds macros that run by themselves (${auto}).`,
    )
  else scene.say('OFFICE_MACROS', policy === 'pass' ? 0 : 2, `${scene.path} holds macros.`)
  if (hostile !== undefined)
    scene.say(
      'OFFICE_MACROS_HOSTILE',
      5,
      `Macros of ${scene.path} reach for the machine (${hostile.trim().slice(0, 40)}).`,
    )
}

type Module = { readonly stream: OleEntry; readonly offset: number | null }

/** Modules by the list of the project; by their look where there is none that can be read. */
function modulesOf({ entries }: Ole): readonly Module[] {
  const streams = entries.filter(({ storage }) => !storage)
  const modules: Module[] = []
  for (const list of streams.filter(({ name }) => name.toLowerCase() === 'dir')) {
    const folder = list.path.slice(0, -list.name.length)
    for (const { name, offset } of listed(
      decompress(list.read(MODULE_BYTES_MAX), SOURCE_BYTES_MAX),
    )) {
      const stream = streams.find(
        ({ path }) => path.toLowerCase() === `${folder}${name}`.toLowerCase(),
      )
      if (stream !== undefined) modules.push({ stream, offset })
    }
  }
  if (modules.length > 0) return modules
  return streams
    .filter(
      ({ path, name }) =>
        /(?:^|\/)vba\//i.test(path) && !/^(?:dir|_vba_project|__srp_.*)$/i.test(name),
    )
    .map((stream) => ({ stream, offset: null }))
}

/** The records MODULESTREAMNAME and MODULEOFFSET of the dir stream (MS-OVBA 2.3.4.2.3.2). */
function listed(dir: Buffer): readonly { readonly name: string; readonly offset: number }[] {
  const modules: { name: string; offset: number }[] = []
  let name: string | null = null
  for (let at = 0; at + 6 <= dir.length && modules.length < MODULES_MAX; ) {
    const id = dir.readUInt16LE(at)
    // PROJECTVERSION says 4 and has 6.
    const size = id === 9 ? 6 : dir.readUInt32LE(at + 2)
    const end = at + 6 + size
    if (end > dir.length) break
    if (id === 0x1a) name = dir.toString('latin1', at + 6, end)
    if (id === 0x32 && size > 0) name = dir.toString('utf16le', at + 6, end)
    if (id === 0x31 && size === 4 && name !== null) {
      modules.push({ name, offset: dir.readUInt32LE(at + 6) })
      name = null
    }
    at = end
  }
  return modules
}

const ATTRIBUTE = Buffer.from('\0Attribut', 'latin1')

/** Sources begin with the word Attribute, whose first letters are never packed. */
function sourceAt(bytes: Buffer): number | null {
  const at = bytes.indexOf(ATTRIBUTE)
  return at < 3 || bytes[at - 3] !== 1 ? null : at - 3
}

/** A compressed container (MS-OVBA 2.4.1), at most `bytesMax` of it; what is damaged ends it. */
function decompress(packed: Buffer, bytesMax: number): Buffer {
  if (packed[0] !== 1) return Buffer.of()
  const out = Buffer.alloc(Math.min(Math.max(0, bytesMax), packed.length * 12 + 4_096))
  let to = 0
  let at = 1
  while (at + 2 <= packed.length && to < out.length) {
    const head = packed.readUInt16LE(at)
    const end = Math.min(packed.length, at + (head & 0xfff) + 3)
    if (((head >> 12) & 7) !== 3) break
    at += 2
    const from = to
    if (head < 0x8000) {
      to += packed.copy(out, to, at, end)
      at = end
      continue
    }
    while (at < end && to < out.length) {
      let flags = packed[at] ?? 0
      at += 1
      for (let bit = 0; bit < 8 && at < end && to < out.length; bit += 1, flags >>= 1) {
        if ((flags & 1) === 0) {
          out[to] = packed[at] ?? 0
          to += 1
          at += 1
          continue
        }
        if (at + 2 > end) {
          at = end
          break
        }
        const token = packed.readUInt16LE(at)
        at += 2
        let bits = 4
        while (1 << bits < to - from) bits += 1
        const length = (token & (0xffff >> bits)) + 3
        const back = (token >> (16 - bits)) + 1
        if (back > to) return out.subarray(0, to)
        for (let step = 0; step < length && to < out.length; step += 1, to += 1)
          out[to] = out[to - back] ?? 0
      }
    }
    if (to - from > 4_096 * 2) break
  }
  return out.subarray(0, to)
}
