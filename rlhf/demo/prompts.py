"""The demo's prompts: about five hundred harmless everyday requests, in our own words.

A family is a list of topics and a few templates; topic number i takes template i modulo their number, so the list is
the same on every machine and each topic opens one conversation only (splits go by the opening turn). A few
conversations have an earlier exchange, so that the road of several turns is walked too.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.records import Message


@dataclass(frozen=True, slots=True)
class Family:
    """Requests of one kind; `{x}` in a template stands for the topic."""

    name: str
    templates: tuple[str, ...]
    topics: str  # separated by semicolons

    def openings(self) -> list[str]:
        topics = [" ".join(topic.split()) for topic in self.topics.split(";")]
        return [self.templates[i % len(self.templates)].replace("{x}", topic) for i, topic in enumerate(topics)]


FAMILIES = (
    Family(
        "explain",
        (
            "In two sentences, explain {x}.",
            "My child asked me {x}. What should I say?",
            "Tell me in simple words {x}.",
            "Explain {x} with one everyday example.",
        ),
        """why the sky looks blue; how yeast makes bread rise; why the moon changes its shape; how a fridge keeps food
        cold; why leaves turn red in autumn; how bees make honey; why we yawn; how a rainbow forms; why the sea is
        salty; how a bicycle stays upright; why onions make us cry; how an aeroplane stays in the air; why cats purr;
        how soap removes grease; why ice floats; how a compass finds north; why we need sleep; how a volcano erupts;
        why stars twinkle; how a microwave heats food; why bread goes stale; how tides work; why we get hiccups; how a
        magnet pulls iron; why metal feels colder than wood; how a seed knows which way is up; why thunder comes late;
        how a thermos keeps tea hot; why popcorn pops; how a lock and key work; why some birds fly in a V; how glass
        is made; why apples turn brown; how a battery stores energy; why deserts are cold at night; how a zip fastener
        works; why we have leap years; how a spider builds its web; why mirrors swap left and right; how vaccines
        teach the body; why milk boils over; how a barcode works; why mountains have snow on top; how fish breathe
        under water; why spicy food feels hot; how a pencil rubber works; why wheels have tyres; how rain gets into
        clouds; why paper burns but sand does not; how a candle keeps burning; why snow is white; how a piano makes
        sound; why rust eats iron; how a fever helps; why we see better with two eyes; how a lift knows where to stop;
        why the days get shorter in winter; how a recipe for jam keeps fruit safe; why boats do not sink; how a
        traffic light knows when to change; why dogs sniff everything; how an echo comes back""",
    ),
    Family(
        "learn",
        (
            "How do I start with {x} as a complete beginner?",
            "Give me one good tip for getting better at {x}.",
            "What mistake do most people make with {x}?",
            "How long does it take to get good at {x}? Answer briefly.",
        ),
        """juggling; baking sourdough bread; playing the guitar; running five kilometres; growing tomatoes; drawing
        faces; speaking in public; learning Spanish; swimming front crawl; playing chess; sewing buttons and hems;
        taking photographs at night; making fresh pasta; touch typing; meditation; writing short stories; riding a
        horse; woodworking; yoga; bird watching; keeping a diary; singing in a choir; using spreadsheets; knitting a
        scarf; cooking rice; skateboarding; reading music; solving crosswords; painting with watercolours; dancing
        salsa; repairing a bicycle; making candles; rock climbing; calligraphy; saving money; playing the drums;
        fishing in a lake; telling jokes; mental arithmetic; learning sign language; making cheese at home; pruning
        roses; cross-country skiing; programming in Python; origami; remembering names; ice skating; cooking with
        spices; building model trains; gardening on a balcony; writing poems; playing table tennis; negotiating a
        price; keeping bees; making pottery; stargazing with binoculars; listening well; rowing; icing a cake; map
        reading""",
    ),
    Family(
        "home",
        (
            "What is the easiest way to {x}?",
            "How do I {x}? Keep it short.",
            "List three steps to {x}.",
            "I want to {x}, but I have no special tools. What can I use?",
        ),
        """clean a burnt pan; unblock a sink; get candle wax out of a carpet; hang a heavy picture; stop a door from
        squeaking; remove a coffee stain from a shirt; sharpen a kitchen knife; fold a fitted sheet; keep herbs fresh;
        fix a dripping tap; clean the inside of a kettle; move a heavy sofa; paint a small bedroom; get rid of fruit
        flies; wash a woollen jumper; descale a shower head; store winter clothes; mend a hole in a sock; tidy a
        crowded garage; dry shoes overnight; clean windows without streaks; keep bananas from going brown; freeze
        soup; wrap a round present; iron a shirt; take ink off leather; patch a small hole in a wall; keep a
        houseplant alive; light a fireplace; sort old photographs; save water in the bathroom; pack a suitcase; remove
        a sticky label from a jar; organise a small kitchen; keep a cat off the table; warm up a cold room; clean a
        computer keyboard; peel garlic quickly; reuse glass jars; loosen a rusty screw; sort the recycling; wash muddy
        football boots; ripen an avocado; make a bed neatly; defrost a freezer; stop windows from steaming up; carry
        eggs without breaking them; polish silver spoons; protect a table from hot plates; make a room smell fresh;
        shell a boiled egg; store potatoes; clean a wooden board; hide cables behind a desk; measure a room; label
        boxes for moving; save leftovers; cool a bedroom in summer; repot a cactus; remove chewing gum from hair""",
    ),
    Family(
        "plan",
        (
            "Help me plan {x}.",
            "What do I need to think of for {x}?",
            "Make a short checklist for {x}.",
            "I have one week to prepare {x}. Where do I begin?",
        ),
        """a birthday picnic for six children; a weekend in the mountains; a move to a new flat; a garden party; a
        school play; a surprise dinner for my parents; a long train journey; a job interview; a quiet Sunday at home;
        a street market stall; a camping trip with a dog; a family reunion; a vegetable garden; a film night; a first
        aid kit for the car; a charity run; a baby shower; a study timetable for exams; a day at the beach; a museum
        visit with toddlers; a book club; a cycling tour along a river; a small wedding; a games evening; a winter
        walk; a school reunion; a visit from my grandmother; a monthly budget; a bake sale; a road trip across two
        countries; a farewell party at work; a morning routine; a week of simple dinners; a science fair project; a
        spring clean; a night under the stars; a talk for thirty colleagues; a picnic in uncertain weather; a treasure
        hunt in the park; a stay in hospital; a neighbourhood clean-up; a kitchen renovation; a trip to a city where I
        do not speak the language; a quiz night; a breakfast for twenty guests; a photo album for my sister; a sports
        day; a reading corner for a classroom; a day without screens; a concert in a small hall; a house-warming
        party; a tasting of six cheeses; a puppet show; a rainy holiday week with teenagers; a first visit to the
        dentist; a balcony full of flowers; a car-free month; a retirement party; a craft afternoon; a walk with a
        blind friend""",
    ),
    Family(
        "compare",
        (
            "Which is better: {x}?",
            "Compare in a few sentences: {x}.",
            "I can't decide: {x}. What would you choose and why?",
            "What is the main difference here: {x}?",
        ),
        """tea or coffee in the morning; a tent or a caravan; gas or electric cooking; a cat or a dog in a small flat;
        paper books or an e-reader; the train or the car for a commute; butter or olive oil for frying; renting or
        buying a home; running or swimming for the knees; a laptop or a tablet for a student; wool or cotton in
        winter; fresh or frozen peas; a city or a village for raising children; early mornings or late evenings for
        study; cash or card on holiday; a guitar or a piano as a first instrument; a bath or a shower; working at home
        or in an office; rice or pasta for a crowd; a small wedding or a big one; handwriting or typing notes; a beach
        holiday or a hiking holiday; real or artificial plants; one long holiday or several short ones; a pencil or a
        pen for sketching; cooking or ordering in; honey or sugar in tea; a wooden or a plastic cutting board; a film
        or a novel for a long flight; a fixed or a flexible timetable; a backpack or a suitcase; a phone call or a
        letter to an old friend; a gym or a park for exercise; brown or white bread; an alarm clock or natural light;
        a big breakfast or a big dinner; a map on paper or on a phone; tap or bottled water; a garden with grass or
        with stones; a team sport or a solo sport; dark or milk chocolate for baking; podcasts or radio; a bicycle or
        a scooter in town; sneakers or boots on a muddy path; knitting or crochet; board games or card games; candles
        or lamps on a terrace; a diary or a calendar app; a hot or a cold drink on a hot day; stairs or the lift; oats
        or eggs for breakfast; a sofa or two armchairs; dogs on a lead or running free; a haircut at home or at a
        salon; new or second-hand furniture; a cruise or a road trip; jam or marmalade; a bus tour or a walking tour;
        silence or music while reading; blinds or curtains""",
    ),
    Family(
        "write",
        ("Write {x}.", "Draft {x}, friendly and short.", "Write {x} in at most three sentences.", "Help me word {x}."),
        """a thank-you note to a neighbour who watered my plants; an invitation to a housewarming; a birthday wish for
        my uncle; an apology for missing a meeting; a note asking my landlord to fix the heating; a short story about
        a lost glove; a message to cancel a dinner; a description of a quiet lake; a poem about the first snow; a
        toast for two old friends; an email asking for a day off; a sign for a shared kitchen; a postcard from the
        seaside; a welcome for a new colleague; a review of a good bakery; a note for a teacher about a missed lesson;
        an advert for a used bicycle; a riddle about time; a complaint about a late parcel; a bedtime story about a
        brave snail; a recipe for lemonade; a reference for a babysitter; a get-well card for my cousin; a message to
        make peace after a quarrel; a slogan for a lemonade stand; a letter to my future self; a description of my
        home town in autumn; a speech for a football team; a note to share with my flatmates about noise; a poem for a
        cat; an introduction for a talk on bees; a reminder about a library book; a dialogue between a kettle and a
        teapot; a message to invite an old friend for coffee; a farewell to a teacher; a short scene in a train; a
        label for homemade jam; an answer to a job offer that I must refuse; a caption for a photo of a sunrise; a
        fable about a fox and a clock; a note to the postman; a summary of a rainy day; a wish for the new year; a
        question for a guest speaker; a short letter to the mayor about a crossing; a text about why I love soup; a
        message about a change of plans; an invitation to a chess club; a limerick about a sleepy baker; a description
        of the smell of bread; a note of encouragement before an exam; a lullaby of four lines; a request for a
        refund; a news item about a village fair; a message to a friend who moved away; a small prayer of thanks for
        food; a rule for a family game night; a haiku about the sea; an email to a gym to end a contract; a greeting
        for a choir's anniversary""",
    ),
    Family(
        "list",
        ("Give me three {x}.", "Name five {x}.", "Suggest a few {x}.", "I am looking for {x}. Any ideas?"),
        """ideas for a rainy afternoon; cheap presents for a teacher; snacks without sugar; games for a long car ride;
        plants that need little light; ways to save electricity; names for a grey kitten; healthy lunches for work;
        questions to ask at a job interview; ways to fall asleep faster; dishes with chickpeas; hobbies for a retired
        engineer; books for a child who loves dinosaurs; exercises to do at a desk; things to do with old newspapers;
        soups for winter; ways to remember a shopping list; words that rhyme with light; things to take on a day hike;
        topics for small talk; ways to say thank you; animals that sleep in winter; breakfasts in five minutes; uses
        for lemon peel; team names for a quiz; flowers that bloom in spring; songs for a campfire; ways to greet a shy
        child; things to check before a bike ride; habits of good neighbours; drinks for a children's party; tools for
        a small garden; jobs that need no degree; ways to use less plastic; ideas for a first date; sights that
        tourists overlook in a harbour town; side dishes for fish; stretches for a stiff neck; good reasons to keep a
        diary; rules for a shared flat; toppings for pizza; ways to calm down before a test; inventions that changed
        kitchens; things to draw; sports for people over sixty; colours that suit a small room; gifts that cost
        nothing; ways to make maths fun; trees for a small yard; jokes for a wedding speech; foods that keep for
        months; things to learn in a weekend; ways to help a new neighbour; costumes made from cardboard; desserts
        without an oven; ways to stay warm at a bus stop; bedtime rituals; questions for my grandfather about his
        youth; instruments that are easy to carry; sandwiches for a picnic""",
    ),
    Family(
        "advise",
        (
            "{x}. What should I do?",
            "{x}. How would you handle it?",
            "{x}. Please give me some short advice.",
            "{x}. Any tips?",
        ),
        """My neighbour plays loud music at night; I keep forgetting birthdays; My dog barks at the postman; I feel
        nervous before speaking to a group; My flatmate never washes up; I cannot fall asleep before two; My son does
        not want to read; I spend too much on coffee; My bread never rises; I am always late in the morning; My friend
        borrowed money and forgot; I get bored while running; My houseplants keep dying; I want to drink more water;
        My desk is always a mess; I have two job offers; My daughter is afraid of the dark; I eat too many sweets at
        work; My phone distracts me all day; I argue with my brother about chores; My back hurts after gardening; I do
        not know what to cook tonight; My bicycle was stolen; I want to make friends in a new town; My cat wakes me at
        five; I find it hard to say no; My soup is too salty; I lost my keys again; My colleague takes credit for my
        work; I want to read more books; My windows let in a cold draught; I keep putting off my tax forms; My
        grandmother feels lonely; I am tired after lunch; My team meets too often; I have to move in two weeks; My
        child will not eat vegetables; I broke a borrowed umbrella; My emails pile up; I would like to wake up
        earlier; My shoes smell; I dropped my phone in water; My garden is full of snails; I am shy at parties; My
        guests arrive in an hour and the house is untidy; I want to learn faster; My puppy chews the chairs; I forgot
        a friend's name; My train is always crowded; I cannot choose a colour for my kitchen; My teenager sleeps until
        noon; I am homesick; My car makes a strange noise; I want to write a letter but do not know how to begin; My
        hands are always cold; I said something rude to a friend; My tomatoes stay green; I work at night and miss the
        sun; My neighbour's tree shades my garden; I am afraid of flying""",
    ),
)  # fmt: skip

CONVERSATIONS = (  # opening turn, the assistant's reply, the turn to answer
    ("I bought too many carrots.", "You could roast them, grate them into a salad or make soup.",
     "Tell me how to make the soup."),
    ("Can you suggest a pet for a busy person?", "A pair of guinea pigs or some fish need little time.",
     "What do fish need?"),
    ("I would like to get fitter.", "Walking half an hour each day is a good start.",
     "And what can I do when it rains?"),
    ("What is a good first novel in English?", "Short ones with plain words work well.",
     "How should I deal with unknown words?"),
    ("My tea tastes bitter.", "It may have brewed for too long.", "How long should green tea brew?"),
    ("We are visiting Lisbon in May.", "May is mild there, with many long sunny days.", "What should we pack?"),
    ("I need a costume by tomorrow.", "A ghost or a cat can be made from what you have at home.",
     "How do I make the cat?"),
    ("My son wants to build a kite.", "You need light sticks, paper, string and a tail.", "What is the tail for?"),
    ("I have an hour free every evening.", "You might read, draw or learn an instrument.",
     "Which instrument is quiet?"),
    ("There is frost on my car.", "Scrape it off, or cover the glass in the evening.", "Can I pour hot water on it?"),
    ("How many eggs do I need for pancakes?", "Two eggs are enough for four people.", "I have no eggs. What now?"),
    ("I am writing a speech for my sister's wedding.", "Begin with a small story about her.",
     "How do I end the speech?"),
    ("We have mice in the shed.", "Close the gaps and keep seeds in tins.", "Which smells do mice dislike?"),
    ("My handwriting is hard to read.", "Slow down and leave more space between the words.", "Does the pen matter?"),
    ("I planted garlic last week.", "Good, it likes to grow through the winter.", "When can I harvest it?"),
    ("Our football team lost again.", "That is hard, but each match teaches something.", "How can I cheer them up?"),
    ("I want to give up sugar.", "Start with drinks: water or tea instead of lemonade.",
     "What can I eat as a dessert?"),
    ("My laptop is slow.", "Close what you don't use and restart it.", "It is still slow. What else can I try?"),
    ("I would like to see a meteor shower.", "Find a dark place and look up after midnight.",
     "What should I bring along?"),
    ("We adopted a rescue dog.", "Give it a quiet corner and a steady routine.",
     "It hides under the bed. Is that normal?"),
    ("Is it cheaper to bake my own bread?", "Usually yes, if you bake several loaves at once.",
     "How do I store the loaves?"),
    ("I got lost in the old town.", "Look for a church tower and walk towards it.",
     "How can I avoid getting lost next time?"),
    ("My grandfather wants to use video calls.", "Set it up for him and write the steps down.",
     "Write these steps for him."),
    ("Our class has to paint a wall.", "Pick a theme with large simple shapes.", "Which colours go well together?"),
)  # fmt: skip


def prompts() -> list[tuple[Message, ...]]:
    """Every prompt, in a fixed order; each ends with a user's turn and opens with one that no other prompt has."""
    openings = [opening for family in FAMILIES for opening in family.openings()]
    single: list[tuple[Message, ...]] = [(Message("user", opening),) for opening in openings]
    longer: list[tuple[Message, ...]] = [
        (Message("user", opening), Message("assistant", answer), Message("user", further))
        for opening, answer, further in CONVERSATIONS
    ]
    return single + longer
