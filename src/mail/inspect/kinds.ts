/**
 * What a file is by its content. A table of our own: it answers at once, gives every kind that
 * some program would take the file for, and knows what the lists of others leave out.
 */
import { isTarHeader } from './archives/tar.ts'

/** Kinds that hold files of their own. */
export type ArchiveKind =
  | '7z'
  | 'apm'
  | 'ar'
  | 'arj'
  | 'bzip2'
  | 'cab'
  | 'chm'
  | 'cpio'
  | 'cramfs'
  | 'dmg'
  | 'ext'
  | 'fat'
  | 'gpt'
  | 'gzip'
  | 'hfs'
  | 'iso'
  | 'lzh'
  | 'lzma'
  | 'mbr'
  | 'ntfs'
  | 'qcow'
  | 'rar'
  | 'rar5'
  | 'rpm'
  | 'squashfs'
  | 'tar'
  | 'udf'
  | 'vdi'
  | 'vhd'
  | 'vhdx'
  | 'vmdk'
  | 'wim'
  | 'xar'
  | 'xz'
  | 'z'
  | 'zip'
  | 'zstd'

export type ProgramKind = 'class' | 'dex' | 'elf' | 'lnk' | 'macho' | 'pe'
export type DocumentKind = 'html' | 'mime' | 'ole' | 'onenote' | 'pdf' | 'rtf' | 'svg' | 'tnef'
export type OtherKind =
  | 'audio'
  | 'bmp'
  | 'font'
  | 'gif'
  | 'jpeg'
  | 'png'
  | 'text'
  | 'tiff'
  | 'video'
  | 'webp'
  | 'xml'

export type Kind = ArchiveKind | ProgramKind | DocumentKind | OtherKind

const set = (words: string): ReadonlySet<Kind> => new Set(words.split(' ') as Kind[])

const MEDIA = set('audio bmp font gif jpeg png tiff video webp')

/** Streams and disk images: what holds one file, or one file system. */
export const LAYERS = set('apm bzip2 dmg gpt gzip lzma mbr qcow rpm vdi vhd vhdx vmdk xz z zstd')

/** Opened by 7-Zip. */
export const BY_SEVEN = set(
  '7z apm ar arj bzip2 cab chm cpio cramfs dmg ext fat gpt hfs iso lzh lzma mbr ntfs qcow rar rar5 rpm squashfs tar udf vdi vhd vhdx vmdk wim xar xz z zstd',
)

/** What they hold is shown anyhow, and stored archives in them are not hidden. */
const OPENED_WHOLE = set(
  '7z cab chm fat gpt iso mbr mime ntfs ole onenote rar rar5 tar udf vhd vhdx wim zip',
)

type Magic = readonly [kind: Kind, offset: number, magic: Buffer]

function magic(kind: Kind, offset: number, ...texts: readonly string[]): readonly Magic[] {
  return texts.map((text) => [kind, offset, Buffer.from(text, 'latin1')])
}

/** Signatures of the formats, each at its place. */
const MAGIC: readonly Magic[] = [
  ...magic('zip', 0, 'PK\x03\x04', 'PK\x05\x06', 'PK\x07\x08', 'PK00PK'),
  ...magic('gzip', 0, '\x1f\x8b'),
  ...magic('7z', 0, '7z\xbc\xaf\x27\x1c'),
  ...magic('rar', 0, 'Rar!\x1a\x07\x00', 'RE\x7e\x5e'),
  ...magic('rar5', 0, 'Rar!\x1a\x07\x01\x00'),
  ...magic('tar', 257, 'ustar'),
  ...magic('bzip2', 0, 'BZh'),
  ...magic('xz', 0, '\xfd7zXZ\0'),
  ...magic('zstd', 0, '\x28\xb5\x2f\xfd'),
  ...magic('z', 0, '\x1f\x9d', '\x1f\xa0'),
  ...magic('cab', 0, 'MSCF\0\0\0\0'),
  ...magic('arj', 0, '\x60\xea'),
  ...magic('lzh', 2, '-lh', '-lz'),
  ...magic('udf', 32_769, 'BEA01', 'NSR02', 'NSR03'),
  ...magic('udf', 34_817, 'BEA01', 'NSR02', 'NSR03'),
  ...magic('udf', 36_865, 'BEA01', 'NSR02', 'NSR03'),
  ...magic('iso', 32_769, 'CD001'),
  ...magic('vhd', 0, 'conectix'),
  ...magic('vhdx', 0, 'vhdxfile'),
  ...magic('vmdk', 0, 'KDMV'),
  ...magic('vdi', 64, '\x7f\x10\xda\xbe'),
  ...magic('qcow', 0, 'QFI\xfb'),
  ...magic('wim', 0, 'MSWIM\0\0\0'),
  ...magic('squashfs', 0, 'hsqs', 'sqsh', 'shsq', 'qshs'),
  ...magic('cpio', 0, '070701', '070702', '070707', '\xc7\x71'),
  ...magic('rpm', 0, '\xed\xab\xee\xdb'),
  ...magic('ar', 0, '!<arch>\n'),
  ...magic('chm', 0, 'ITSF\x03\0\0\0'),
  ...magic('xar', 0, 'xar!'),
  ...magic('cramfs', 0, '\x45\x3d\xcd\x28'),
  ...magic('ntfs', 3, 'NTFS    '),
  ...magic('gpt', 512, 'EFI PART'),
  ...magic('hfs', 1_024, 'BD', 'H+\0\x04', 'HX\0\x05'),
  ...magic('apm', 0, 'ER\x02\0'),
  ...magic('ole', 0, '\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1'),
  ...magic('onenote', 0, '\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3'),
  ...magic('tnef', 0, '\x78\x9f\x3e\x22'),
  ...magic('elf', 0, '\x7fELF'),
  ...magic('lnk', 0, 'L\0\0\0\x01\x14\x02\0'),
  ...magic(
    'macho',
    0,
    '\xfe\xed\xfa\xce',
    '\xfe\xed\xfa\xcf',
    '\xce\xfa\xed\xfe',
    '\xcf\xfa\xed\xfe',
  ),
  ...magic('class', 0, '\xca\xfe\xba\xbe'),
  ...magic('dex', 0, 'dex\n03'),
  ...magic('jpeg', 0, '\xff\xd8\xff'),
  ...magic('png', 0, '\x89PNG\r\n\x1a\n'),
  ...magic('gif', 0, 'GIF8'),
  ...magic('bmp', 0, 'BM'),
  ...magic('tiff', 0, 'II*\0', 'MM\0*'),
  ...magic('audio', 0, 'ID3', 'OggS', 'fLaC', 'MThd', '\xff\xfb', '\xff\xf3'),
  ...magic('video', 4, 'ftyp'),
  ...magic('video', 0, '\x1a\x45\xdf\xa3', '\0\0\x01\xba', '\x30\x26\xb2\x75'),
  ...magic('font', 0, 'wOFF', 'wOF2', 'OTTO', '\0\x01\0\0\0'),
]

/** Magics by their first byte where they stand at the start: most files meet two or three. */
const AT_START: readonly (readonly Magic[])[] = Array.from({ length: 256 }, (_, first) =>
  MAGIC.filter(([, offset, bytes]) => offset === 0 && bytes[0] === first),
)
const ELSEWHERE: readonly Magic[] = MAGIC.filter(([, offset]) => offset > 0)

/** Letters by which text is looked at. */
const HEAD_BYTES = 4_096
const TAIL_BYTES = 66_000

/**
 * Every kind that some program would take the content for, the most obvious one first. Empty:
 * nobody knows. `names`: the file's, where a format has no signature.
 */
export function kindsOf(content: Buffer, names: readonly string[]): readonly Kind[] {
  const kinds = new Set<Kind>()
  for (const [kind, , bytes] of AT_START[content[0] ?? 0] ?? [])
    if (holds(content, 0, bytes)) kinds.add(kind)
  if (isPe(content)) kinds.add('pe')
  for (const [kind, offset, bytes] of ELSEWHERE)
    if (content.length > offset && content[offset] === bytes[0] && holds(content, offset, bytes))
      kinds.add(kind)
  if (kinds.has('bmp') && !isBmp(content)) kinds.delete('bmp')
  if (
    kinds.has('bzip2') &&
    !/^BZh[1-9](?:1AY&SY|\x17rE8P\x90)/.test(content.toString('latin1', 0, 10))
  )
    kinds.delete('bzip2')
  if (kinds.has('arj') && !isArj(content)) kinds.delete('arj')
  if (kinds.has('lzh') && !/^-l[hz][0-9ds]-/.test(content.toString('latin1', 2, 7)))
    kinds.delete('lzh')
  if (kinds.has('hfs') && !(content.length > 400_000 && kinds.size === 1)) kinds.delete('hfs')
  // Tar before POSIX has no signature.
  if (!kinds.has('tar') && isTarHeader(content)) kinds.add('tar')
  for (const kind of diskKinds(content)) kinds.add(kind)
  for (const kind of textKinds(content, names, kinds.size === 0)) kinds.add(kind)
  if (kinds.size === 0 && names.some((name) => /\.lzma[\s.]*$/i.test(name))) kinds.add('lzma')
  if (names.some((name) => /\.zip[\s.]*$/i.test(name))) kinds.add('zip')
  return [...kinds]
}

/** Kinds hidden in or behind content of another kind, each with the place where it begins. */
export function hiddenKinds(
  content: Buffer,
  kinds: readonly Kind[],
): readonly { readonly kind: ArchiveKind; readonly at: number }[] {
  const hidden: { kind: ArchiveKind; at: number }[] = []
  if (kinds.some((kind) => kind === 'text' || OPENED_WHOLE.has(kind))) return hidden
  if (!kinds.includes('zip') && endsAsZip(content)) hidden.push({ kind: 'zip', at: 0 })
  for (const [kind, signature] of CARVED) {
    if (kinds.includes(kind)) continue
    const at = content.indexOf(signature, 1)
    if (at !== -1) hidden.push({ kind, at })
  }
  return hidden
}

const CARVED: readonly (readonly [ArchiveKind, Buffer])[] = [
  ['rar', Buffer.from('Rar!\x1a\x07\x00', 'latin1')],
  ['rar5', Buffer.from('Rar!\x1a\x07\x01\x00', 'latin1')],
  ['7z', Buffer.from('7z\xbc\xaf\x27\x1c\0', 'latin1')],
]

/** An end record whose directory is where it says, or right before it. */
function endsAsZip(content: Buffer): boolean {
  const from = Math.max(0, content.length - TAIL_BYTES)
  const tail = content.subarray(from)
  for (
    let at = tail.lastIndexOf('PK\x05\x06');
    at !== -1;
    at = at === 0 ? -1 : tail.lastIndexOf('PK\x05\x06', at - 1)
  ) {
    if (at + 22 > tail.length) continue
    const size = tail.readUInt32LE(at + 12)
    const start = tail.readUInt32LE(at + 16)
    for (const place of [start, from + at - size])
      if (place >= 0 && place + 4 <= content.length && content.readUInt32LE(place) === 0x0201_4b50)
        return true
  }
  return false
}

/** Whether content is media: nothing in it is unpacked, and no inspector reads all of it. */
export function isMedia(kinds: readonly Kind[]): boolean {
  return kinds.length > 0 && kinds.every((kind) => MEDIA.has(kind))
}

function holds(content: Buffer, offset: number, bytes: Buffer): boolean {
  if (offset + bytes.length > content.length) return false
  for (let index = 0; index < bytes.length; index += 1)
    if (content[offset + index] !== bytes[index]) return false
  return true
}

/** Text may begin with the letters MZ: a program has zeros in its first header. */
function isPe(content: Buffer): boolean {
  return content[0] === 0x4d && content[1] === 0x5a && content.subarray(0, 64).includes(0)
}

function isBmp(content: Buffer): boolean {
  return content.length >= 26 && content.readUInt32LE(6) === 0 && content.readUInt32LE(14) <= 124
}

function isArj(content: Buffer): boolean {
  const size = content.length > 10 ? content.readUInt16LE(2) : 0
  return size >= 30 && size <= 2_600
}

function diskKinds(content: Buffer): readonly ArchiveKind[] {
  const kinds: ArchiveKind[] = []
  const { length } = content
  if (length >= 1_024) {
    if (content.toString('latin1', length - 512, length - 504) === 'conectix') kinds.push('vhd')
    if (content.toString('latin1', length - 512, length - 508) === 'koly') kinds.push('dmg')
    if (
      length >= 2_048 &&
      content.readUInt16LE(1_080) === 0xef53 &&
      content.readUInt32LE(1_048) <= 6
    )
      kinds.push('ext')
    if (content[510] === 0x55 && content[511] === 0xaa) {
      const fat =
        content.toString('latin1', 54, 57) === 'FAT' || content.toString('latin1', 82, 85) === 'FAT'
      const jump = content[0] === 0xeb || content[0] === 0xe9
      const ntfs = content.toString('latin1', 3, 7) === 'NTFS'
      if (!ntfs && jump && (fat || isFatTable(content))) kinds.push('fat')
      else if (!ntfs && !kinds.includes('vhd') && isPartitions(content)) kinds.push('mbr')
    }
  }
  return kinds
}

function isFatTable(content: Buffer): boolean {
  const sector = content.readUInt16LE(11)
  return [512, 1_024, 2_048, 4_096].includes(sector) && (content[16] === 1 || content[16] === 2)
}

/** Four entries, each active or not, one of them in use. */
function isPartitions(content: Buffer): boolean {
  let used = 0
  for (let at = 446; at < 510; at += 16) {
    const flag = content[at]
    if (flag !== 0 && flag !== 0x80) return false
    if (content[at + 4] !== 0 && content.readUInt32LE(at + 12) > 0) used += 1
  }
  return used > 0
}

/** Formats that begin with words. `bare`: no signature was met. */
function textKinds(content: Buffer, names: readonly string[], bare: boolean): readonly Kind[] {
  const kinds: Kind[] = []
  const head = headText(content)
  const pdf = head.indexOf('%PDF-')
  // Readers take a PDF that begins anywhere in the first kilobyte.
  if (pdf !== -1 && pdf < 1_024) kinds.push('pdf')
  if (/^\s*\{\\rt/.test(head)) kinds.push('rtf')
  const named = (pattern: RegExp): boolean => names.some((name) => pattern.test(name))
  if (/<svg[\s>]/i.test(head) || (bare && named(/\.svgz?[\s.]*$/i))) kinds.push('svg')
  if (
    /<(?:!doctype\s+html|html|head|body|script|iframe|meta\s)/i.test(head) ||
    (bare && named(/\.(?:[xs]?html?|hta)[\s.]*$/i))
  )
    kinds.push('html')
  if (bare || kinds.length > 0) {
    if (isMime(head) || (bare && named(/\.(?:eml|mht|mhtml)[\s.]*$/i))) kinds.push('mime')
    if (/^\s*<\?xml/.test(head)) kinds.push('xml')
    if (kinds.length === 0 && isText(content)) kinds.push('text')
  }
  return kinds
}

/** The first letters; UTF-16 is read as its low bytes, which is all that marks need. */
function headText(content: Buffer): string {
  const [a, b] = content
  const wide = (a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff)
  const text = content.toString('latin1', 0, wide ? HEAD_BYTES * 2 : HEAD_BYTES)
  return wide ? text.slice(2).replace(/\0/g, '') : text.replace(/^\xef\xbb\xbf/, '')
}

function isMime(head: string): boolean {
  return (
    /^\s*(?:from|to|date|subject|received|return-path|mime-version|content-[\w-]+|message-id|x-[\w-]+)[ \t]*:/i.test(
      head,
    ) && /^(?:mime-version|content-type)[ \t]*:/im.test(head)
  )
}

function isText(content: Buffer): boolean {
  const end = Math.min(content.length, 1_024)
  for (let at = 0; at < end; at += 1) {
    const byte = content[at] ?? 0
    if (byte < 9 || (byte > 13 && byte < 32 && byte !== 27)) return false
  }
  return end > 0
}
