/** Dangerous names of files: by every name that a reader would show, as a desktop shows it. */
import { plainLine } from '../../message/header.ts'
import type { Found } from './found.ts'

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

/** Score from which a name speaks for itself and the type adds nothing. */
export const RUNS = 8
const DECEIVES = 8
const HIDES = 3

/**
 * Returns the score of the worst name. `depth`: 0 for what is attached, more inside archives;
 * `more`: endings that the operator holds, lower case.
 */
export function lookAtNames(
  names: readonly string[],
  depth: number,
  path: string,
  more: readonly string[],
  found: Found,
): number {
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
    const score = scoreOf(extension, depth, more)
    worst = Math.max(worst, score)
    if (score > 0)
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

function scoreOf(extension: string, depth: number, more: readonly string[]): number {
  if (more.includes(extension)) return RUNS
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

/** Endings of the names in lower case, without the dot. */
export function endingsOf(names: readonly string[]): readonly string[] {
  return names.map((name) => split(cleanName(name)).extension)
}

function split(name: string): { extension: string; before: string } {
  const dot = name.lastIndexOf('.')
  return dot === -1
    ? { extension: '', before: name }
    : { extension: name.slice(dot + 1).trim(), before: name.slice(0, dot) }
}
