/** Topics of those who sell to whoever has an address: wares, money, work, and how they call. */
import type { Topic } from './topics.ts'

export const WARES: readonly Topic[] = [
  {
    rule: 'TEXT_PILLS',
    about: 'medicine without a doctor',
    steps: [
      [2, 1],
      [3, 2],
      [5, 3.5],
    ],
    phrases: `
      viagra
      cialis
      levitra
      phentermine
      xanax
      valium
      vicodin
      tramadol
      ambien
      propecia
      hgh
      !human growth hormone
      !growth hormone
      !no prescription|doctor needed|required|necessary|visit
      !without a|prescription doctor|prescription
      !online|canadian|discount|internet pharmacy|pharmacies|drugstore
      prescription drugs|medication|medications|medicine
      generic drugs|version|medication|medications
      !erectile dysfunction
      !penis|breast|manhood enlargement|size|enhancement|enlarger|pills
      !enlarge|increase your|penis penis|size|manhood
      !sexual performance|desire|stamina|health|energy|potency
      !male enhancement|potency
      !lose|shed|drop weight|pounds|# pounds|lbs|while|fast|inches|without
      weight loss product|pill|program|breakthrough|secret|supplement|gummies|formula
      !burn|burns fat|calories
      body fat
      !fat loss|burner|burning
      !diet pill|pills|patch
      anti aging
      !reverse|reverses|reversing aging|the|diabetes
      !keto gummies|diet
      cbd gummies|oil
      !wrinkle|wrinkles reduction|removal|and
      clinically proven
      !all natural|herbal formula|product|herbal|supplement|alternative
      !herbal viagra|supplement|remedy|alternative
      money back guarantee
      libido
      !ohne rezept
      !rezeptfrei
      !potenzmittel
      !abnehmen ohne
      !sans ordonnance
      !sin receta
      !senza ricetta
    `,
  },
  {
    rule: 'TEXT_LOAN',
    about: 'loans and debts',
    steps: [
      [2, 1],
      [3, 2.5],
      [5, 4],
    ],
    phrases: `
      !mortgage rates|rate|quote|quotes|loan|loans|lenders|lender|payment|application|company|companies
      !refinance your|now|today|and
      !refinancing
      home|equity loan|loans|equity|improvement
      !equity loan|loans|line
      !lowest|low|lower|best interest|rate|rates|mortgage|monthly
      interest rate|rates
      !debt consolidation|free|elimination|relief|reduction
      !consolidate your|all|debt|debts|bills
      !out of debt
      !your debt|debts|credit into|off|problems|rating|report|cards
      !any|bad|poor|good|perfect|less credit ok|okay|or|no|history|bad|is|rating
      !no credit check|checks
      !credit check|problems|history
      !pre|already approved|qualified
      !you|you've have been approved|pre
      !lenders compete|will|are
      !free quote|quotes|consultation|evaluation
      !loan|business offer|offers|loan approval|at|funding|up
      !# % interest|apr|rate|financing
      !life|term|health|car|auto insurance quote|quotes|rates|policy|coverage|premiums
      !save up to # %
      !unsecured|payday|personal|cash loan|loans|advance
      merchant cash|account advance|accounts|status
      !accept credit cards
      !tax|back lien|liens|taxes|relief
      !extended|auto|car warranty
      !kredit ohne schufa
      !günstiger|schneller|sofort kredit
      !prêt|crédit entre|sans|rapide particulier|particuliers
      !préstamo|préstamos rápido|rápidos|personal|personales
      !prestito|prestiti veloce|personale|personali
    `,
  },
  {
    rule: 'TEXT_INCOME',
    about: 'money that is made without work',
    steps: [
      [2, 0.7],
      [3, 2],
      [5, 3],
      [8, 4],
    ],
    phrases: `
      !work from|at home|your and|at|business|online|jobs|job|moms
      !home based|business business|opportunity
      !home|based workers|employment|business needed
      !make|earn|earning money|$|thousands|extra|up online|#|fast|from|while|at|of|income|to
      !extra|additional|residual|passive|second|monthly|weekly income|cash|money
      !financial freedom|independence|security|independent
      !financially free|independent|secure
      !be your own boss
      !own boss
      !get rich|paid quick|to|for
      !$ # a|per|each|every day|week|month|hour
      !$ # weekly|daily|monthly
      # a|per day|week|month working|from
      !earning|income potential|opportunity|stream
      !unlimited income|earning|earnings|potential
      business opportunity|opportunities
      !once in a lifetime
      !multi level marketing
      mlm
      !downline
      !your sponsor|upline|downline
      !network marketing|marketers
      no experience|selling|investment|inventory necessary|required|needed|involved
      !start earning|making money|your|today
      !money making|machine opportunity|program|system|machine
      !guaranteed income|to|results|money
      this really works
      chain letter|letters
      send|mail $ # to|cash|bill
      report # how|the
      legal|perfectly|% legal|and
      pyramid scheme
      !stuffing envelopes
      !envelope stuffing
      million dollars|dollar in
      millionaire|millionaires
      cash flow|cow
      six|# figure|figures income|a
      quit|quitting your|my job
      retire early|in|rich
      changed|change|changing my|your life|lives
      strong buy|buy recommendation
      target price
      hot stock|stocks
      !penny stock|stocks
      day trading|traders
      forward looking statements
      investors should|alert
      !double|triple your money|investment|income|bitcoin
      !investment opportunity|opportunities|platform
      !crypto|bitcoin|forex trading|investment|trader|profit
      !geld verdienen
      !von zu hause
      !nebenverdienst|zusatzeinkommen
      !gagner|gagnez de|plus l|d|argent
      !travail|travaillez à domicile|chez
      !ganar|gane|gana dinero
      !desde su|tu casa
      !guadagnare|guadagna soldi|da|denaro|online
    `,
  },
  {
    rule: 'TEXT_ADULT',
    about: 'sex for sale',
    steps: [
      [2, 0.7],
      [3, 2],
      [5, 3.5],
    ],
    phrases: `
      xxx
      hardcore
      !live sex|girls|cams|nude|webcam
      !hot|horny|naked|nude|sexy|young|barely teens|teen|girls|girl|women|babes|sluts|housewives|wives|legal|chicks|moms|singles
      !teen|teens sex|girls|sluts|fuck|fucking
      !adult|porn|sex site|sites|video|videos|movies|pics|pictures|web|dvd|dvds|content|entertainment|photos
      !free|% porn|sex|adult|xxx|free|pics
      porn|porno
      !pornstars|pornstar
      must be # years|or|21|over
      !sex|fuck|hookup|hook tonight|partner|buddy
      !blowjob|blowjobs|cumshot|cumshots|cum|gangbang
      !sluts|slut|whores|pussy|cock|cocks|tits|horny|lesbian|lesbians
      !lonely|cheating|married housewives|wives|women|wife
      !russian|asian|ukrainian|beautiful women|girls|brides|ladies|single
      !my|hot|nude|naked webcam|pics|photos|cam
      !meet|find local|single|sexy|real|hot singles|women|girls
      !looking for a serious|man|real|good|relationship
      !heiße|geile frauen|girls
      !sexkontakte|seitensprung
      !rencontres coquines|sexy
    `,
  },
  {
    rule: 'TEXT_CASINO',
    about: 'games for money',
    steps: [
      [2, 1],
      [4, 2.5],
    ],
    phrases: `
      !online|internet|best|vip casino|casinos|gambling|betting
      !casino bonus|games|chips|chip|online
      !free spins|chips|casino
      !deposit|welcome|signup bonus|match
      !no deposit bonus|required|needed
      !real money play|games|slots
      !slots|roulette|blackjack|baccarat
      poker room|online|bonus
      !sports book|betting|bets
      sportsbook
      jackpot|jackpots
      !gratis freispiele|spins
      freispiele
      tours gratuits
      tiradas|giros gratis|gratuitos
    `,
  },
  {
    rule: 'TEXT_IMITATION',
    about: 'watches, degrees and programs that are not what they are called',
    steps: [
      [2, 1],
      [3, 2],
      [5, 3],
    ],
    phrases: `
      !replica watch|watches|rolex|handbags|bags|shoes
      !rolex|cartier|breitling|omega|louis watches|watch|replica|replicas|vuitton
      !luxury|designer|swiss watches|replica|watch|handbags
      university|college degree|diploma|diplomas|degrees
      degree|diploma|diplomas based|from|in on|a|prestigious|weeks
      !prestigious non|unaccredited|university accredited|universities
      !life|work|present|past experience|knowledge degree|diploma|and
      !oem|cheap software|oem
      !software cheap|for|at #|low|wholesale
      !cable|satellite descrambler|descramblers|filter
      !descrambler
      !copy|burn|backup any|dvd|dvds movies
      !toner|ink|inkjet|laser cartridges|cartridge|jet|printer
      !fake|counterfeit documents|passport|money|notes|watches
      !replik|repliken
    `,
  },
  {
    rule: 'TEXT_OUTREACH',
    about: 'addresses, ranks and sites for sale',
    steps: [
      [2, 1],
      [3, 2],
      [4, 3],
    ],
    phrases: `
      million|millions|# email|e|fresh|of|million addresses|mail|email|emails|opt
      bulk email|e|mail|emails|mailing|friendly
      e mail addresses|marketing|campaign
      email marketing|addresses|lists|list|campaign|blast|blasting|extractor
      opt in list|email|lists|leads|e
      fresh|targeted|qualified|quality|verified leads|traffic|email|emails|visitors
      search engine|engines ranking|rankings|optimization|placement|submission|submissions|listing
      rank|ranking|rankings on|your|in google|website|higher
      increase|drive|boost|more your|traffic|more|website|sales|to traffic|sales|visitors|your
      backlinks|guest post|posts|da
      guest post|posts|posting
      link|links building|exchange
      domain authority
      website|web|mobile|app design|development|redesign|developers services|company|and|at
      we are|offer|provide a|professional|affordable|seo|web|digital
      seo services|company|expert|packages|audit|proposal|agency
      attendee|attendees|buyers|contact list|database|lists
      email|business list|database for|of
      list of|includes companies|attendees|contacts
      decision makers
      interested let|please me|reply|send
      advertise your|to|on|for business|product|website|web
      advertising campaign|rates|budget
      reach # million|people|potential|new customers|people
      market your|to business|product|millions
    `,
  },
  {
    rule: 'TEXT_CALL',
    about: 'buying at once',
    steps: [
      [2, 0.4],
      [3, 0.8],
      [4, 1.2],
      [6, 2],
      [9, 2.5],
    ],
    phrases: `
      as low as
      special offer|offers
      we can help|save|offer|show
      cost to you
      less than perfect
      order form
      please allow # hours|days|weeks|to
      increase|double|boost your sales|income|profits|business|chances
      for your business|family
      everything you need|ever|wanted
      this|one incredible|amazing|special offer|product|opportunity|program|deal
      # % guaranteed
      call us|me today|now|toll|at
      visit our|this web|site|website|page
      see for yourself
      what are you waiting
      you have nothing to lose
      to find|learn out|more|how click|please|visit|call
      check it|this out|site
      amazing|incredible|revolutionary|miracle|unbelievable
      act|order|call|respond|reply|apply|join|buy|register|enroll|subscribe now|today|immediately|fast
      order|call today|now|toll and|free|for
      call toll|now|us free|#|at
      toll free #|number|at
      limited time|offer offer|only
      limited|special|exclusive|introductory|bonus|time offer|offers|price|bonus
      while supplies|stocks|quantities last
      supplies last
      don't|dont|do miss|delay|wait|hesitate any|this|out|another
      no obligation|obligations|risk|cost|strings|catch|purchase|gimmicks|hype
      risk free
      absolutely|completely|totally free|no|risk
      % free|guaranteed|satisfaction|risk|money
      satisfaction guaranteed|is
      money back|guarantee
      % money|satisfaction back|guarantee|guaranteed
      free trial|sample|gift|report|bonus|shipping|info|information|membership|access|consultation|preview|offer|vacation|cd|ebook|video
      as seen on|in
      credit card|cards accepted|required|needed|or|and
      visa|master mastercard|card|or
      shipping and|& handling
      plus shipping|$ and|s
      special promotion|introductory|discount
      satisfied customers|or
      click here|below|the|now to|for|now|and|link|below
      please|just|simply|and click|visit here|below|on|our|the
      you won't|will|can't believe|be|afford|lose|regret
      why pay|wait more
      save|saving|discount|off up|$|#|over|thousands|money|big
      only $|for #
      just|only $ #
      guaranteed|guarantee
      for only|just|as $|little
      once|opportunity in|of a lifetime
      are|do|would|have you|want tired|want|like|ever|need|owe|paying
      commandez|achetez|profitez dès|maintenant|vite|de
      compre|ordene|aproveche ahora|ya|hoy
      acquista|approfitta|ordina ora|subito
    `,
  },
  {
    rule: 'TEXT_FORM',
    about: 'a form that asks who the reader is',
    steps: [
      [1, 1],
      [2, 2],
      [3, 2.7],
    ],
    phrases: `
      fill|complete out|in the|our|this form|information
      out|complete the|our|this form|information below
      form below
      address city state
      city state zip
      mail|email phone|fax|telephone
      best time to call|contact
      name address|street
      day|evening|home|work|daytime phone|telephone number
      zip|postal code
      more information name
      date of birth
      company name
      name on card
      expiration|exp date
      print|type your name
      telefonnummer und|adresse
    `,
  },
  {
    rule: 'TEXT_REMOVE',
    about: 'leaving a list that nobody joined',
    steps: [
      [1, 0.6],
      [2, 1.3],
      [3, 2],
      [4, 2.5],
      [6, 3.5],
    ],
    phrases: `
      does|do not wish to receive
      who does not
      address was|has obtained|been
      want anyone to receive
      professional communication
      remove|removing yourself
      our|from mailings|mailing
      for removal
      any inconvenience
      opt in list
      to be unsubscribed|deleted
      removed from any|our|future|all|this|the
      your email|e address|mail was|address
      was obtained from
      our database|databases
      this mailing
      to be|get removed|taken|excluded from|off|by|please|click|send|reply
      be removed|taken|excluded|deleted|remove from|off|our|by|please|permanently
      remove in|as|or|from the|subject|a
      word|type|put|with|subject remove
      remove me|your|yourself|my|be from|name|email|address|e
      removal|remove request|requests|instructions|link|list|from
      type|put|enter|write remove|unsubscribe|your
      this|email is|message is|not|cannot|was|complies spam|unsolicited|not|be|sent|considered|with|in
      not|never|cannot be|spam|considered unsolicited|considered|spam
      is not spam|unsolicited
      bill|section|senate|s|title #|s|section|paragraph #
      u|us|105th s|congress senate|congress
      compliance with|of federal|all|the|proposed|current|state
      future mailings|mailing|emails|e|messages|mail|offers|promotions|correspondence
      further mailings|mailing|emails|e|messages|transmissions|mail|correspondence
      no further|longer|more wish|want|emails|mailings|contact|email
      you|i do|no not|longer wish|want to receive|be
      receive|receiving any|further|future|more|this|these|our|special offers|mail|email|emails|mailings|message|messages
      opt|opted in|out to|or|of|list|from|here|by
      opt out
      mailing|our list|mailing|database lists|list|please
      sorry|apologize|apologies for|if|if any|you|this inconvenience|received|have|message|in
      one|once time|only mailing|email|message
    `,
  },
]
