/** What is looked for in every file, wherever it lies: its names, its type, the test virus. */
import { plainLine } from '../../message/header.ts'
import type { FileFacts } from './files.ts'
import type { Found } from './found.ts'
import type { Kind } from './kinds.ts'
import { endingsOf, lookAtNames, RUNS } from './names.ts'

/** In two halves, so that no scanner takes this program for it. */
const EICAR = Buffer.from(
  ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-', 'ANTIVIRUS-TEST-FILE!$H+H*'].join(''),
)

export function isEicar(content: Buffer): boolean {
  return content.includes(EICAR)
}

/** What passes by in pieces and may never be there as a whole. */
export class Passing {
  readonly #hash = new Bun.CryptoHasher('sha256')
  #seam: Buffer = Buffer.of()
  #eicar = false

  get eicar(): boolean {
    return this.#eicar
  }

  see(piece: Buffer): void {
    this.#hash.update(piece)
    if (this.#eicar) return
    // The text may lie where two pieces meet.
    const joint = Buffer.concat([this.#seam, piece.subarray(0, EICAR.length)])
    this.#eicar = isEicar(joint) || isEicar(piece)
    const end = piece.length < EICAR.length ? joint : piece
    this.#seam = Buffer.from(end.subarray(-EICAR.length))
  }

  /** Hex, once. */
  digest(): string {
    return this.#hash.digest('hex')
  }
}

/** Kinds that run or carry what runs: what they are in words, and their score. */
const DANGERS: Partial<Record<Kind, readonly [what: string, score: number]>> = {
  pe: ['a Windows program', RUNS],
  elf: ['a Linux program', RUNS],
  lnk: ['a Windows shortcut', RUNS],
  macho: ['a macOS program', RUNS],
  class: ['a Java class or macOS program', RUNS],
  dex: ['an Android program', RUNS],
  chm: ['compiled help', RUNS],
  vhd: ['a disk image', RUNS],
  vhdx: ['a disk image', RUNS],
  iso: ['a disk image', 4],
  udf: ['a disk image', 4],
  fat: ['a disk image', 4],
  ntfs: ['a disk image', 4],
  wim: ['a disk image', 4],
  onenote: ['a OneNote section', 4],
}

/** By its names alone; returns the score of the worst. */
export function lookAtFile(file: FileFacts, more: readonly string[], found: Found): number {
  if (file.names.length === 0) return 0
  return lookAtNames(file.names, file.depth, file.path, more, found)
}

/** By its kinds; `nameScore`: what its names weigh. */
export function lookAtContent(
  file: FileFacts,
  kinds: readonly Kind[],
  nameScore: number,
  found: Found,
): void {
  let worst: readonly [string, number] | null = null
  for (const kind of kinds) {
    const danger = DANGERS[kind]
    if (danger !== undefined && danger[1] > (worst?.[1] ?? 0)) worst = danger
  }
  if (worst !== null && worst[1] > nameScore)
    found.add('BAD_ATTACHMENT_TYPE', worst[1], `${file.path} is ${worst[0]}.`)
  // What runs has been said; that it is also called something else adds nothing.
  if (worst !== null && worst[1] >= RUNS) return
  const claim = claimOf(file)
  const kind = kinds[0]
  if (claim === null || kind === undefined) return
  if (kinds.some((each) => claim.kinds.has(each)) || !TELLING.has(kind)) return
  found.add(
    'ATTACHMENT_TYPE_MISMATCH',
    3,
    `${file.path} is called ${plainLine(claim.as, 40)}, and is ${kind}.`,
  )
}

type Claim = { readonly as: string; readonly kinds: ReadonlySet<Kind> }

const IMAGE: ReadonlySet<Kind> = new Set<Kind>([
  'bmp',
  'gif',
  'jpeg',
  'png',
  'svg',
  'tiff',
  'video',
  'webp',
])
const PDF: ReadonlySet<Kind> = new Set<Kind>(['pdf'])
const TEXT: ReadonlySet<Kind> = new Set<Kind>(['html', 'mime', 'rtf', 'svg', 'text', 'xml'])
const SOUND: ReadonlySet<Kind> = new Set<Kind>(['audio', 'video'])
const ZIPPED: ReadonlySet<Kind> = new Set<Kind>(['ole', 'zip'])
const WORD: ReadonlySet<Kind> = new Set<Kind>(['html', 'ole', 'rtf', 'text', 'xml', 'zip'])

/** What a name promises, by its ending. */
const CLAIMS: ReadonlyMap<string, ReadonlySet<Kind>> = new Map([
  ...['bmp', 'gif', 'jpe', 'jpeg', 'jpg', 'png', 'tif', 'tiff', 'webp'].map(
    (name) => [name, IMAGE] as const,
  ),
  ['pdf', PDF],
  ...['csv', 'log', 'md', 'txt'].map((name) => [name, TEXT] as const),
  ...['avi', 'm4a', 'mov', 'mp3', 'mp4', 'wav'].map((name) => [name, SOUND] as const),
  ...['docm', 'docx', 'pptm', 'pptx', 'xlsm', 'xlsx'].map((name) => [name, ZIPPED] as const),
  ...['doc', 'dot', 'xls'].map((name) => [name, WORD] as const),
])

/** What no honest program writes under the name of something else. */
const TELLING: ReadonlySet<Kind> = new Set<Kind>([
  '7z',
  'ar',
  'arj',
  'bzip2',
  'cab',
  'chm',
  'class',
  'dex',
  'elf',
  'fat',
  'gzip',
  'html',
  'iso',
  'lnk',
  'lzh',
  'macho',
  'mime',
  'ntfs',
  'ole',
  'onenote',
  'pe',
  'rar',
  'rar5',
  'rtf',
  'svg',
  'tar',
  'udf',
  'vhd',
  'vhdx',
  'wim',
  'xz',
  'zip',
  'zstd',
])

function claimOf({ names, type }: FileFacts): Claim | null {
  for (const [index, ending] of endingsOf(names).entries()) {
    const kinds = CLAIMS.get(ending)
    if (kinds !== undefined) return { as: names[index] ?? '', kinds }
  }
  if (names.length > 0 || type === null) return null
  if (type.startsWith('image/')) return { as: type, kinds: IMAGE }
  if (type === 'application/pdf') return { as: type, kinds: PDF }
  return null
}
