/** Dates as mail writes them (RFC 5322 section 3.3). Pure. */
import { isoTime } from '../base/clock.ts'

const DAY_MS = 86_400_000
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const
const MONTHS = [
  'Jan',
  'Feb',
  'Mar',
  'Apr',
  'May',
  'Jun',
  'Jul',
  'Aug',
  'Sep',
  'Oct',
  'Nov',
  'Dec',
] as const
/** The epoch was a Thursday. */
const EPOCH_DAY = 4

/** `Sun, 22 Nov 2026 01:05:09 +0000`. `wallMs` since the epoch, not negative. Always UTC. */
export function mailDate(wallMs: number): string {
  const [date = '', time = ''] = isoTime(wallMs).split('T')
  const [year = '', month = '', day = ''] = date.split('-')
  const weekday = DAYS[(Math.floor(wallMs / DAY_MS) + EPOCH_DAY) % 7]
  return `${weekday}, ${Number(day)} ${MONTHS[Number(month) - 1]} ${year} ${time.slice(0, 8)} +0000`
}
