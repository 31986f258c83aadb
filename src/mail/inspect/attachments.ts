/** Dangerous attachments: by every name that a reader would show, and by what the content is. */
import { plainLine } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'
import { type FileFacts, visitFiles } from './files.ts'
import type { Inspector } from './look.ts'

/** Score of a name by its extension: attached, and inside an archive. */
type Danger = readonly [attached: number, archived: number]

const words = (text: string): readonly string[] => text.split(' ')

/** One click runs them: held. */
const PROGRAMS = words(
  'ade adp app application appref-ms appx bas chm cmd com cpl diagcab exe gadget grp hlp hta ins isp jnlp jse lnk mad maf mam maq mar mas mat mau mav maw mda mdb mde mdt mdw mdz msc msh msh1 msh2 msi msix msp mst ops osd pcd pif prf scf scr sct settingcontent-ms shb shs theme vb vbe vbp vbs vhd vhdx vsw wsc wsf wsh xbap xll xnk',
)
/** The same, but people send them in archives of source code. */
const SCRIPTS = words(
  'bat csh fxp jar js ksh prg ps1 ps1xml ps2 psc1 psd1 psm1 py pyc pyo pyw reg sh',
)
/** Carriers and parts of programs. */
const CARRIERS = words(
  'ace asp aspx cer cnt crt der dll dmg fon img inf iso its job lib mag mcf msu one onepkg pl pst sys tmp udl url vmdk vxd webpnp website wim xps',
)
const DOUBTFUL = words('arj cab iqy mht mhtml rdp slk sfx zpaq')

const DANGERS: ReadonlyMap<string, Danger> = new Map<string, Danger>([
  ...PROGRAMS.map((name): [string, Danger] => [name, [8, 8]]),
  ...SCRIPTS.map((name): [string, Danger] => [name, [8, 3]]),
  ...CARRIERS.map((name): [string, Danger] => [name, [4, 2]]),
  ...DOUBTFUL.map((name): [string, Danger] => [name, [2, 1]]),
  ['htm', [1, 0]],
  ['html', [1, 0]],
])

/** What a harmless name ends with: another extension behind it hides. */
const HARMLESS = new Set(
  words(
    'avi bmp csv doc docx eml gif htm html jpeg jpg mov mp3 mp4 odp ods odt pdf png ppt pptx rar rtf tif tiff txt wav xls xlsx zip',
  ),
)

/** Content that runs, by its first bytes. */
const MAGIC: readonly (readonly [what: string, matches: (head: Buffer) => boolean])[] = [
  ['a Windows program', (head) => begins(head, 'MZ') && head.subarray(0, 64).includes(0)],
  ['a Linux program', (head) => begins(head, '\x7fELF')],
  ['a Windows shortcut', (head) => begins(head, 'L\0\0\0\x01\x14\x02\0')],
  [
    'a macOS program',
    (head) =>
      /^(?:\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe)/.test(head.toString('latin1', 0, 4)),
  ],
  ['a Java class or macOS program', (head) => begins(head, '\xca\xfe\xba\xbe')],
  ['an Android program', (head) => begins(head, 'dex\n03')],
  ['compiled help', (head) => begins(head, 'ITSF')],
]

/** Score from which a name speaks for itself and the type adds nothing. */
const RUNS = 8
const DECEIVES = 8
const HIDES = 3

export const attachments: Inspector = {
  name: 'attachments',
  inspect: ({ mail }) => {
    const found = new Found()
    visitFiles(mail, (file) => lookAt(file, found))
    for (const part of mail.parts) {
      // An attached message is often named after a site, `Offer of example.com`, and never runs.
      const names = part.container ? part.names.filter((name) => !/\.com[\s.]*$/i.test(name)) : []
      if (names.length > 0) lookAtNames(names, 0, names[0] ?? '', found)
    }
    lookAtTypes(mail, found)
    return found.list()
  },
}

/** One finding a rule: the worst, with the first three files as evidence. */
class Found {
  readonly #byRule = new Map<string, { score: number; facts: string[] }>()

  add(rule: string, score: number, fact: string): void {
    if (score <= 0) return
    const known = this.#byRule.get(rule) ?? { score: 0, facts: [] }
    if (known.facts.length < 3 && !known.facts.includes(fact)) known.facts.push(fact)
    known.score = Math.max(known.score, score)
    this.#byRule.set(rule, known)
  }

  list(): readonly Finding[] {
    return [...this.#byRule].map(([rule, { score, facts }]) => ({
      rule,
      score,
      evidence: facts.join(' '),
    }))
  }
}

function lookAt(file: FileFacts, found: Found): ((piece: Buffer) => boolean) | null {
  const score = lookAtNames(file.names, file.depth, file.path, found)
  // Text in the mail itself has no type to hide; all else shows its first bytes.
  if (
    score >= RUNS ||
    (file.depth === 0 && file.names.length === 0 && file.type?.startsWith('text/'))
  )
    return null
  return (piece) => {
    const what = MAGIC.find(([, matches]) => matches(piece))?.[0]
    if (what !== undefined) found.add('BAD_ATTACHMENT_TYPE', RUNS, `${file.path} is ${what}.`)
    return false
  }
}

/** Returns the score of the worst name. */
function lookAtNames(names: readonly string[], depth: number, path: string, found: Found): number {
  let worst = 0
  for (const written of names) {
    if (/[\u202d\u202e]/.test(written)) {
      found.add(
        'ATTACHMENT_NAME_DECEIVES',
        DECEIVES,
        `${plainLine(path, 200)} turns the direction of its name.`,
      )
    }
    const name = cleanName(written)
    const { extension, before } = split(name)
    const score = scoreOf(extension, depth)
    worst = Math.max(worst, score)
    found.add(
      'BAD_ATTACHMENT_NAME',
      score,
      `${plainLine(path, 200)} ends with .${plainLine(extension, 20)}.`,
    )
    if (score >= 3 && HARMLESS.has(split(before.trimEnd()).extension)) {
      found.add(
        'ATTACHMENT_DOUBLE_EXTENSION',
        HIDES,
        `${plainLine(path, 200)} hides its extension behind another.`,
      )
    }
  }
  return worst
}

function scoreOf(extension: string, depth: number): number {
  // A class id as extension runs whatever is registered for it.
  if (/^\{[0-9a-f-]{36}\}$/.test(extension)) return RUNS
  return DANGERS.get(extension)?.[depth === 0 ? 0 : 1] ?? 0
}

/** The name as a desktop sees it: no path, no stream, no invisible characters, no trailing dots or blanks. */
function cleanName(written: string): string {
  const shown = written
    .normalize('NFKC')
    .replace(/[\x00-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, '')
  const base = shown.slice(Math.max(shown.lastIndexOf('/'), shown.lastIndexOf('\\')) + 1)
  const stream = base.indexOf(':')
  return trimDots(stream > 0 ? base.slice(0, stream) : base).toLowerCase()
}

function trimDots(name: string): string {
  let end = name.length
  while (end > 0 && (name[end - 1] === '.' || name[end - 1] === ' ')) end -= 1
  return name.slice(0, end)
}

function split(name: string): { extension: string; before: string } {
  const dot = name.lastIndexOf('.')
  return dot === -1
    ? { extension: '', before: name }
    : { extension: name.slice(dot + 1).trim(), before: name.slice(0, dot) }
}

/** Types that bring their content from elsewhere: nobody can look at it here. */
function lookAtTypes({ parts }: Mail, found: Found): void {
  for (const { type } of parts) {
    if (type === 'message/partial')
      found.add('MESSAGE_PARTIAL', 8, 'The message is one piece of a larger one.')
    if (type === 'message/external-body')
      found.add('MESSAGE_EXTERNAL', 4, 'A part is fetched from elsewhere when it is read.')
  }
}

function begins(head: Buffer, magic: string): boolean {
  return head.toString('latin1', 0, magic.length) === magic
}
